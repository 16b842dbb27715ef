package netsetup

import (
	"encoding"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"talos/internal/resources/network"
)

// watchEvery is how often the links of a bond are looked at where nobody says:
// a bond that does not look goes on sending into a link that is dead.
const watchEvery = 100

// ParseBond reads a bond's options under the names and with the values of the
// kernel's bonding driver. All problems are told, not only the first.
func ParseBond(options map[string]string) (network.BondMasterSpec, []error) {
	s := network.BondMasterSpec{UseCarrier: true}
	fields := map[string]any{
		"mode": &s.Mode, "xmit_hash_policy": &s.HashPolicy, "lacp_rate": &s.LACPRate, "arp_validate": &s.ARPValidate,
		"arp_all_targets": &s.ARPAllTargets, "primary_reselect": &s.PrimaryReselect, "fail_over_mac": &s.FailOverMac, "ad_select": &s.ADSelect,
		"miimon": &s.MIIMon, "updelay": &s.UpDelay, "downdelay": &s.DownDelay, "arp_interval": &s.ARPInterval, "resend_igmp": &s.ResendIGMP,
		"min_links": &s.MinLinks, "lp_interval": &s.LPInterval, "packets_per_slave": &s.PacketsPerSlave, "num_peer_notif": &s.NumPeerNotif,
		"num_grat_arp": &s.NumPeerNotif, "num_unsol_na": &s.NumPeerNotif, "tlb_dynamic_lb": &s.TLBLogicalLB, "all_slaves_active": &s.AllSlavesActive,
		"use_carrier": &s.UseCarrier, "ad_actor_sys_prio": &s.ADActorSysPrio, "ad_user_port_key": &s.ADUserPortKey,
		"arp_ip_target": &s.ARPIPTargets, "primary": &s.Primary,
	}
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(options)) {
		field, ok := fields[key]
		if !ok {
			problems = append(problems, fmt.Errorf("bond option %q is not known", key))
			continue
		}
		if err := set(field, options[key]); err != nil {
			problems = append(problems, fmt.Errorf("bond option %s=%s: %w", key, options[key], err))
		}
	}
	return Watched(s), problems
}

// Watched is a bond that looks after its links.
func Watched(s network.BondMasterSpec) network.BondMasterSpec {
	if s.MIIMon == 0 && s.ARPInterval == 0 {
		s.MIIMon = watchEvery
	}
	return s
}

// named is a value of which there are a few, each with a name and a number.
type named interface {
	encoding.TextUnmarshaler
	fmt.Stringer
}

// set reads a value into a field.
func set(field any, value string) error {
	number := func(bits int) (uint64, error) {
		n, err := strconv.ParseUint(value, 10, bits)
		if err != nil {
			return 0, fmt.Errorf("want a number below %d", uint64(1)<<bits)
		}
		return n, nil
	}
	var n uint64
	var err error
	switch f := field.(type) {
	case named:
		err = f.UnmarshalText([]byte(value))
		if _, number := strconv.Atoi(f.String()); err == nil && number == nil { // no name stands for it
			err = fmt.Errorf("%s is not known", value)
		}
	case *uint32:
		n, err = number(32)
		*f = uint32(n)
	case *uint16:
		n, err = number(16)
		*f = uint16(n)
	case *uint8: // some are switches
		if on, is := map[string]uint8{"true": 1, "false": 0}[value]; is {
			*f = on
			break
		}
		n, err = number(8)
		*f = uint8(n)
	case *bool:
		*f, err = strconv.ParseBool(value)
	case *string:
		*f = value
	case *[]netip.Addr:
		for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == ';' }) {
			a, err := netip.ParseAddr(part)
			if err != nil {
				return err
			}
			*f = append(*f, a)
		}
	}
	return err
}
