package console

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"

	"talos/internal/layout"
	"talos/internal/resources/cluster"
	"talos/internal/resources/runtime"
	"talos/internal/version"
)

// Screen is what stands on a terminal of that size: at most height lines of at
// most width characters, the first one a title. Text from outside is cleaned: it
// holds nothing that a terminal obeys.
func Screen(s State, width, height int) []string {
	p := &page{width: max(width, 20)}
	p.title(s)
	p.facts(s)
	p.next(s)
	p.wrong(s)
	p.recent(s, height-len(p.lines))
	return p.lines[:min(len(p.lines), max(height, 1))]
}

// page collects lines.
type page struct {
	width int
	lines []string
}

func (p *page) line(format string, args ...any) {
	p.lines = append(p.lines, cut(fmt.Sprintf(format, args...), p.width))
}

// title is product and version on the left, the stage on the right.
func (p *page) title(s State) {
	left, right := version.Name+" "+clean(s.Version), strings.ToUpper(stage(s))
	gap := max(p.width-len(left)-len(right), 1)
	p.line("%s%s%s", left, strings.Repeat(" ", gap), right)
	p.line("")
}

// stage names the stage for people; before anything is known the machine boots.
func stage(s State) string {
	if s.Stage == runtime.StageUnknown {
		return runtime.StageBooting.String()
	}
	return s.Stage.String()
}

const label = 12 // columns of what comes before a fact

func (p *page) fact(name, value string) { p.line("%-*s%s", label, name, value) }

// facts are what the machine is and where it is reached.
func (p *page) facts(s State) {
	host := clean(s.Hostname)
	if host == "" {
		host = "(none yet)"
	}
	p.fact("Host", host)
	p.fact("Address", addressText(s))
	if s.Fingerprint != "" {
		p.fact("API", apiText(s))
		p.fact("Fingerprint", clean(s.Fingerprint))
	}
	if role := role(s.Type); role != "" {
		p.fact("Type", role)
		p.fact("Kubernetes", nodeText(s.Node))
	}
	for _, a := range s.Activity {
		p.wrap(fmt.Sprintf("%-*s", label, "Now"), strings.Repeat(" ", label), clean(a))
	}
	p.line("")
}

// addressText lists the addresses; without one, the links that might give one.
func addressText(s State) string {
	var list []string
	for _, a := range s.Addresses {
		list = append(list, a.String())
	}
	if len(list) > 0 {
		return strings.Join(list, ", ")
	}
	for _, l := range s.Links {
		carrier := "no carrier"
		if l.Up {
			carrier = "connected"
		}
		list = append(list, fmt.Sprintf("%s %s %s", clean(l.Name), clean(l.HardwareAddr), carrier))
	}
	if len(list) == 0 {
		return "(none yet; no network card was found)"
	}
	return "(none yet) " + strings.Join(list, ", ")
}

// apiText is where the API is called.
func apiText(s State) string {
	if len(s.Addresses) == 0 {
		return "(as soon as there is an address)"
	}
	return net.JoinHostPort(s.Addresses[0].String(), strconv.Itoa(layout.APIPort))
}

func role(t cluster.MachineType) string {
	switch t {
	case cluster.TypeControlPlane, cluster.TypeInit:
		return "control plane"
	case cluster.TypeWorker:
		return "worker"
	}
	return ""
}

func nodeText(n *Node) string {
	if n == nil {
		return "the node has not been seen yet"
	}
	text := "node " + clean(n.Name) + " is Ready"
	if !n.Ready {
		text = "node " + clean(n.Name) + " is not Ready"
	}
	if n.Cordoned {
		text += ", takes no new pods"
	}
	return text
}

// next says what to do with a machine that waits for it.
func (p *page) next(s State) {
	if s.Fingerprint == "" {
		return
	}
	p.line("This machine %s. From another machine:", waitsFor(s))
	for _, l := range strangersCommand(s) {
		p.line("  %s", l)
	}
	p.line("")
}

// waitsFor is what a machine waits for that serves whoever reaches it.
func waitsFor(s State) string {
	if s.Unsure {
		return "takes no configuration yet"
	}
	return "waits for its first configuration"
}

// strangersCommand gives a machine its first configuration or, where it takes
// none, asks why; in lines that fit on any screen.
func strangersCommand(s State) []string {
	address, verb, file := "ADDRESS", "apply-config", " -f FILE"
	if len(s.Addresses) > 0 {
		address = s.Addresses[0].String()
	}
	if s.Unsure {
		verb, file = "get diagnostics", ""
	}
	return []string{
		"talosctl " + verb + " --insecure -n " + address + file + ` \`,
		"  --cert-fingerprint " + clean(s.Fingerprint),
	}
}

// wrong is what is wrong.
func (p *page) wrong(s State) {
	if len(s.Wrong) == 0 {
		if s.Ready && s.Stage == runtime.StageRunning {
			p.line("All is well.")
			p.line("")
		}
		return
	}
	p.line("Not as it should be:")
	for _, w := range s.Wrong {
		p.wrap("  ", "    ", problemText(w))
	}
	p.line("")
}

func problemText(w Problem) string { return clean(w.What) + ": " + clean(w.Why) }

// recent fills what room is left with the last warnings and errors.
func (p *page) recent(s State, room int) {
	lines := s.Recent
	if room < 2 || len(lines) == 0 {
		return
	}
	p.line("Last warnings and errors:")
	for _, l := range lines[max(0, len(lines)-(room-1)):] {
		p.line("  %s %s: %s", l.Time.UTC().Format("15:04:05"), clean(l.Service), clean(l.Text))
	}
}

// maxWrapped bounds what one text takes of the screen, in lines.
const maxWrapped = 3

// wrap writes a text on as many lines as it needs.
func (p *page) wrap(first, rest, text string) {
	indent := first
	for range maxWrapped - 1 {
		runes := []rune(text)
		if len(runes) <= p.width-len(indent) {
			break
		}
		at := p.width - len(indent)
		for i := at; i > at/2; i-- {
			if runes[i] == ' ' {
				at = i
				break
			}
		}
		p.line("%s%s", indent, string(runes[:at]))
		text, indent = strings.TrimSpace(string(runes[at:])), rest
	}
	p.line("%s%s", indent, text)
}

// cut shortens a line that is too long, and shows that it did.
func cut(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return strings.TrimRight(line, " ")
	}
	return string(runes[:width-3]) + "..."
}

// clean leaves of a text what a terminal shows in one column each: no control
// characters, nothing that joins with its neighbours or is not in its font.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return ' '
		case r < unicode.MaxLatin1 && unicode.IsPrint(r):
			return r
		}
		return '?'
	}, text)
}
