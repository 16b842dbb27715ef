// Package members knows who is in the cluster. On control plane nodes the
// facts are in etcd below /talos/, written by them alone; everybody else
// watches them through trustd. Each node keeps the last list on STATE, and
// shows it as resources: Members for whoever asks, Affiliates as they were
// told, Identity and Info of itself.
//
// It owns the records, who may write which, and the resources; it leaves the
// proving of names and addresses to internal/trustd/signer, and the asking to
// internal/join. All of it is safe for concurrent use.
package members

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"talos/api/membership"
	"talos/config"
	"talos/internal/identity"
)

const (
	maxAddresses = 32
	maxText      = 128 // bytes of what people read
)

// Record is what is known of a member. It is kept as JSON.
type Record struct {
	NodeID          identity.ID  `json:"nodeId"`
	Hostname        string       `json:"hostname"`
	Addresses       []netip.Addr `json:"addresses"`
	MachineType     string       `json:"machineType"`
	OperatingSystem string       `json:"operatingSystem,omitempty"`
	APIServerPort   int          `json:"apiServerPort,omitempty"`
	// AlsoKnown are further names and addresses of a control plane node, which
	// nobody else may be certified as.
	AlsoKnown []string `json:"alsoKnown,omitempty"`
}

// Check says what is wrong with a record: it may come from another node.
func (r Record) Check() error {
	switch {
	case !r.NodeID.Valid():
		return fmt.Errorf("%.80q is no node id", r.NodeID)
	case !ValidHostname(r.Hostname):
		return fmt.Errorf("%.80q is no host name", r.Hostname)
	case r.MachineType != config.TypeControlPlane && r.MachineType != config.TypeWorker:
		return fmt.Errorf("machine type %.40q of %s is none", r.MachineType, r.Hostname)
	case len(r.Addresses) == 0 || len(r.Addresses) > maxAddresses:
		return fmt.Errorf("%s has %d addresses, not 1 to %d", r.Hostname, len(r.Addresses), maxAddresses)
	case r.APIServerPort < 0 || r.APIServerPort > 65535, r.APIServerPort > 0 && !r.controlPlane():
		return fmt.Errorf("%s, a %s, has an API server on port %d", r.Hostname, r.MachineType, r.APIServerPort)
	case len(r.OperatingSystem) > maxText || strings.ContainsFunc(r.OperatingSystem, func(c rune) bool { return !unicode.IsPrint(c) }):
		return fmt.Errorf("the name of %s's operating system is not to be read by people", r.Hostname)
	}
	for _, a := range r.Addresses {
		if !Usable(a) {
			return fmt.Errorf("%s's address %v is no node's", r.Hostname, a)
		}
	}
	return nil
}

func (r Record) controlPlane() bool { return r.MachineType == config.TypeControlPlane }

// Usable says whether an address can be that by which others reach a node.
func Usable(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && a.Zone() == "" &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// ValidHostname holds RFC 1123's rules, in lower case; a name that reads as an
// address is none.
func ValidHostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// DecodeRecord reads a record as it is kept, and checks it.
func DecodeRecord(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("record of a member: %w", err)
	}
	return r, r.Check()
}

// FromWire reads a list of members as trustd sends it. What is wrong in it is
// left out, and told.
func FromWire(list []*membership.Member) ([]Record, error) {
	var out []Record
	var problems []error
	for _, m := range list {
		r, err := fromWire(m)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(problems...)
}

func fromWire(m *membership.Member) (Record, error) {
	r := Record{
		NodeID: identity.ID(m.GetNodeId()), Hostname: m.GetHostname(), MachineType: m.GetMachineType(),
		OperatingSystem: m.GetOperatingSystem(), APIServerPort: int(m.GetApiServerPort()),
	}
	for _, text := range m.GetAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return Record{}, fmt.Errorf("address of member %.80q: %w", m.GetHostname(), err)
		}
		r.Addresses = append(r.Addresses, a.Unmap())
	}
	return r, r.Check()
}

// ToWire is the list as trustd sends it.
func ToWire(list []Record) *membership.MemberList {
	out := &membership.MemberList{}
	for _, r := range list {
		m := &membership.Member{
			NodeId: string(r.NodeID), Hostname: r.Hostname, MachineType: r.MachineType,
			OperatingSystem: r.OperatingSystem, ApiServerPort: int32(r.APIServerPort),
		}
		for _, a := range r.Addresses {
			m.Addresses = append(m.Addresses, a.String())
		}
		out.Members = append(out.Members, m)
	}
	return out
}

// Merge is the cluster as this node sees it: the list, with what the node
// knows of itself in place of what others say of it. Of several with one name
// a control plane node wins; the order is that of names.
func Merge(list []Record, own *Record) []Record {
	byName := map[string]Record{}
	for _, r := range list {
		if own != nil && (r.NodeID == own.NodeID || r.Hostname == own.Hostname) {
			continue
		}
		if have, ok := byName[r.Hostname]; !ok || r.controlPlane() && !have.controlPlane() {
			byName[r.Hostname] = r
		}
	}
	if own != nil {
		byName[own.Hostname] = *own
	}
	out := make([]Record, 0, len(byName))
	for _, r := range byName {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.Hostname, b.Hostname) })
	return out
}
