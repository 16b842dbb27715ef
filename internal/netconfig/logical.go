package netconfig

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"talos/config"
	"talos/internal/netsetup"
	"talos/internal/resources/network"
)

// addresses tells an entry that says what addresses its link has.
func addresses(d config.Device) bool {
	return len(d.Addresses)+len(d.Routes) > 0 || d.DHCP != nil
}

// logical is what an entry says of VLANs on its link, and of a bond that its
// link is.
func (out specs) logical(name string, d config.Device, links []link, claimed claims) []error {
	var problems []error
	if d.Bond != nil {
		how, wrong := netsetup.ParseBond(bondOptions(*d.Bond))
		for _, p := range wrong {
			problems = append(problems, fmt.Errorf("%s: %w", name, p))
		}
		if parts := bondLinks(*d.Bond, links); len(parts) > 0 {
			out.bond(network.LayerConfiguration, name, parts, how, claimed)
		} else {
			problems = append(problems, fmt.Errorf("bond %s: there are none of the links that it is made of", name))
		}
	}
	for _, v := range d.Vlans {
		vlan := name + "." + strconv.Itoa(v.VlanID)
		if len(vlan) > maxName {
			problems = append(problems, fmt.Errorf("VLAN %d on %s: the name %s is longer than %d bytes", v.VlanID, name, vlan, maxName))
			continue
		}
		entry := config.Device{Interface: vlan, Addresses: v.Addresses, Routes: v.Routes, DHCP: v.DHCP, MTU: v.MTU, DHCPOptions: v.DHCPOptions}
		problems = append(problems, out.device(vlan, entry)...)
		out.vlan(network.LayerConfiguration, vlan, name, uint16(v.VlanID))
		if claimed.raise(vlan, named); addresses(entry) {
			claimed.raise(vlan, addressed)
		}
	}
	return problems
}

// maxName is the length of a link's name (IFNAMSIZ, less the zero behind it).
const maxName = 15

// bondLinks lists the links that a bond is made of, each once.
func bondLinks(b config.Bond, links []link) []string {
	parts := slices.Clone(b.Interfaces)
	for _, s := range b.DeviceSelectors {
		for _, l := range links {
			if matches(s, l) && !slices.Contains(parts, l.name) {
				parts = append(parts, l.name)
			}
		}
	}
	return parts
}

// bondOptions gives a bond's settings the kernel's names.
func bondOptions(b config.Bond) map[string]string {
	out := map[string]string{}
	for key, value := range map[string]string{
		"mode": b.Mode, "xmit_hash_policy": b.XmitHashPolicy, "lacp_rate": b.LacpRate, "arp_validate": b.ArpValidate, "arp_all_targets": b.ArpAllTargets,
		"primary": b.Primary, "primary_reselect": b.PrimaryReselect, "fail_over_mac": b.FailOverMac, "ad_select": b.AdSelect,
		"arp_ip_target": strings.Join(b.ArpIPTarget, ","),
	} {
		if value != "" {
			out[key] = value
		}
	}
	for key, value := range map[string]int{
		"miimon": b.Miimon, "updelay": b.Updelay, "downdelay": b.Downdelay, "arp_interval": b.ArpInterval, "resend_igmp": b.ResendIgmp,
		"min_links": b.MinLinks, "lp_interval": b.LpInterval, "packets_per_slave": b.PacketsPerSlave, "num_peer_notif": b.NumPeerNotif,
		"tlb_dynamic_lb": b.TlbDynamicLb, "all_slaves_active": b.AllSlavesActive, "ad_actor_sys_prio": b.AdActorSysPrio, "ad_user_port_key": b.AdUserPortKey,
	} {
		if value != 0 {
			out[key] = strconv.Itoa(value)
		}
	}
	if b.UseCarrier != nil {
		out["use_carrier"] = strconv.FormatBool(*b.UseCarrier)
	}
	return out
}
