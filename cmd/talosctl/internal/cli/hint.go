package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"talos/client"
	"talos/client/talosconfig"
)

// hint says what the user can do about an error; empty if that is plain.
func (a *App) hint(err error) string {
	var path *fs.PathError
	switch {
	case errors.Is(err, talosconfig.ErrNoContext):
		return fmt.Sprintf("choose one with `%[1]s config context NAME` or --context, make a cluster with `%[1]s cluster create`, or add one with `%[1]s config merge FILE`", a.Name)
	case errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) && a.isTalosconfig(path.Path):
		return fmt.Sprintf("there is no talosconfig there: name one with --talosconfig or $TALOSCONFIG, make a cluster with `%s cluster create`, or take over one with `%s config merge FILE`", a.Name, a.Name)
	}
	var call *client.Error
	if !errors.As(err, &call) {
		return ""
	}
	return a.callHint(call)
}

func (a *App) isTalosconfig(path string) bool {
	want, err := talosconfig.Find(a.Talosconfig, a.Getenv)
	return err == nil && want == path
}

func (a *App) callHint(call *client.Error) string {
	if call.Node != "" && strings.Contains(call.Text, "waits for its first configuration") { // so another node says of it
		return fmt.Sprintf("`%s apply-config --insecure -n %s -f FILE` gives it one", a.Name, call.Node)
	}
	switch call.Kind {
	case client.Unreachable:
		another := "? -e chooses another endpoint"
		if a.insecure {
			another = "?"
		}
		if strings.Contains(call.Text, "refused") {
			return "nothing listens there: is the node up, and is it the right address" + another
		}
		return "is the address right, and is the network between here and there open for port 50000" + another
	case client.UntrustedServer:
		return a.untrustedHint(call.Text)
	case client.Unconfigured:
		return fmt.Sprintf("%s waits for its first configuration: use --insecure", call.Endpoint)
	case client.Configured:
		return fmt.Sprintf("%s is configured already: leave out --insecure", call.Endpoint)
	case client.RefusedClient:
		return fmt.Sprintf("this context's client certificate is not of that cluster's CA, or it has none: `%s config info` shows which context and certificate are in use", a.Name)
	case client.ExpiredClient:
		return fmt.Sprintf("get a new certificate with `%s config new` from a context that still works, or from the cluster's secrets with `%s gen config --with-secrets`; a wrong clock here looks the same", a.Name, a.Name)
	case client.Denied:
		if strings.Contains(call.Text, "no request forwarding") {
			return "name a control plane node with -e"
		}
		if strings.Contains(call.Text, "in maintenance mode") {
			return fmt.Sprintf("give it a configuration first: `%s apply-config --insecure -n %s -f FILE`", a.Name, call.Endpoint)
		}
		return fmt.Sprintf("the roles of the client certificate may not do this: `%s config info` shows them; an admin makes others with `%s config new --roles`", a.Name, a.Name)
	case client.Lost:
		return "whether the node carried it out is not known; look at its state before repeating it"
	case client.Unimplemented:
		return fmt.Sprintf("`%s version` compares the versions of client and node", a.Name)
	case client.Timeout:
		return fmt.Sprintf("the node is there but busy or stuck: `%s service` and `%s dmesg` may tell", a.Name, a.Name)
	}
	return ""
}

func (a *App) untrustedHint(text string) string {
	switch {
	case strings.Contains(text, "none of those expected"):
		return "compare with the machine's console: after each boot it has another; if that shows what you gave, somebody else answers in its place"
	case strings.Contains(text, "not for this name"):
		return "use an endpoint that the certificate names, or add this one to machine.certSANs"
	case strings.Contains(text, "expired or not yet valid"):
		return "compare the clocks of this machine and the node"
	case strings.Contains(text, "not of the CA"):
		return "that machine is of another cluster, or the cluster was made anew: choose its context with --context, or merge its new talosconfig"
	}
	return "is this the node's API (port 50000)?"
}
