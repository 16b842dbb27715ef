package network

import (
	"net/netip"
	"reflect"
)

// The kinds of links that networkd makes, with the kernel's names.
const (
	KindVLAN = "vlan"
	KindBond = "bond"
)

// BondSlave makes a link part of a bond.
type BondSlave struct {
	MasterName string `yaml:"masterName,omitempty" protobuf:"1"`
	SlaveIndex int    `yaml:"slaveIndex,omitempty" protobuf:"2"`
}

// VLANSpec is the tag of a VLAN; its link's parent is what it runs over.
type VLANSpec struct {
	VID      uint16       `yaml:"vlanID" protobuf:"1"`
	Protocol VLANProtocol `yaml:"vlanProtocol" protobuf:"2"`
}

// BondMasterSpec is how a bond works, as the kernel's bonding driver documents
// it. What is zero is left to the kernel, but for Mode and UseCarrier.
type BondMasterSpec struct {
	Mode            BondMode        `yaml:"mode" protobuf:"1"`
	HashPolicy      BondHashPolicy  `yaml:"xmitHashPolicy" protobuf:"2"`
	LACPRate        LACPRate        `yaml:"lacpRate" protobuf:"3"`
	ARPValidate     ARPValidate     `yaml:"arpValidate" protobuf:"4"`
	ARPAllTargets   ARPAllTargets   `yaml:"arpAllTargets" protobuf:"5"`
	PrimaryReselect PrimaryReselect `yaml:"primaryReselect" protobuf:"7"`
	FailOverMac     FailOverMAC     `yaml:"failOverMac" protobuf:"8"`
	ADSelect        ADSelect        `yaml:"adSelect,omitempty" protobuf:"9"`
	MIIMon          uint32          `yaml:"miimon,omitempty" protobuf:"10"` // milliseconds, as all times here but LPInterval
	UpDelay         uint32          `yaml:"updelay,omitempty" protobuf:"11"`
	DownDelay       uint32          `yaml:"downdelay,omitempty" protobuf:"12"`
	ARPInterval     uint32          `yaml:"arpInterval,omitempty" protobuf:"13"`
	ResendIGMP      uint32          `yaml:"resendIgmp,omitempty" protobuf:"14"`
	MinLinks        uint32          `yaml:"minLinks,omitempty" protobuf:"15"`
	LPInterval      uint32          `yaml:"lpInterval,omitempty" protobuf:"16"` // seconds
	PacketsPerSlave uint32          `yaml:"packetsPerSlave,omitempty" protobuf:"17"`
	NumPeerNotif    uint8           `yaml:"numPeerNotif,omitempty" protobuf:"18"`
	TLBLogicalLB    uint8           `yaml:"tlbLogicalLb,omitempty" protobuf:"19"`
	AllSlavesActive uint8           `yaml:"allSlavesActive,omitempty" protobuf:"20"`
	UseCarrier      bool            `yaml:"useCarrier,omitempty" protobuf:"21"`
	ADActorSysPrio  uint16          `yaml:"adActorSysPrio,omitempty" protobuf:"22"`
	ADUserPortKey   uint16          `yaml:"adUserPortKey,omitempty" protobuf:"23"`
	ARPIPTargets    []netip.Addr    `yaml:"arpIpTargets,omitempty" protobuf:"25"`
	Primary         string          `yaml:"primary,omitempty" protobuf:"29"`
}

// IsZero tells a link that is no bond, so that YAML leaves it out.
func (s BondMasterSpec) IsZero() bool { return reflect.ValueOf(s).IsZero() }

// IsZero tells a link that is no VLAN, so that YAML leaves it out.
func (s VLANSpec) IsZero() bool { return s.VID == 0 }

// VLANProtocol is the Ethernet type of a VLAN's tag.
type VLANProtocol int32

// The protocols.
const (
	VLAN8021Q  VLANProtocol = 0x8100
	VLAN8021AD VLANProtocol = 0x88a8
)

// BondMode is how a bond spreads packets, with the kernel's numbers.
type BondMode int32

// The modes.
const (
	BondRoundRobin BondMode = iota
	BondActiveBackup
	BondXOR
	BondBroadcast
	Bond8023AD
	BondTLB
	BondALB
)

// BondHashPolicy chooses the link of a packet in the modes that hash.
type BondHashPolicy int32

// LACPRate is how often the partner of an 802.3ad bond shall speak.
type LACPRate int32

// ARPValidate says which ARP packets count when links are watched by ARP.
type ARPValidate int32

// ARPAllTargets says whether one target that answers is enough.
type ARPAllTargets int32

// PrimaryReselect says when a primary link that came back is used again.
type PrimaryReselect int32

// FailOverMAC says whose hardware address an active-backup bond has.
type FailOverMAC int32

// ADSelect chooses the aggregator of an 802.3ad bond.
type ADSelect int32

var (
	vlanProtocolNames = map[VLANProtocol]string{VLAN8021Q: "802.1q", VLAN8021AD: "802.1ad"}
	bondModeNames     = map[BondMode]string{
		BondRoundRobin: "balance-rr", BondActiveBackup: "active-backup", BondXOR: "balance-xor", BondBroadcast: "broadcast",
		Bond8023AD: "802.3ad", BondTLB: "balance-tlb", BondALB: "balance-alb",
	}
	hashPolicyNames  = map[BondHashPolicy]string{0: "layer2", 1: "layer3+4", 2: "layer2+3", 3: "encap2+3", 4: "encap3+4"}
	lacpRateNames    = map[LACPRate]string{0: "slow", 1: "fast"}
	arpValidateNames = map[ARPValidate]string{
		0: "none", 1: "active", 2: "backup", 3: "all", 4: "filter", 5: "filter_active", 6: "filter_backup",
	}
	arpAllTargetsNames   = map[ARPAllTargets]string{0: "any", 1: "all"}
	primaryReselectNames = map[PrimaryReselect]string{0: "always", 1: "better", 2: "failure"}
	failOverMACNames     = map[FailOverMAC]string{0: "none", 1: "active", 2: "follow"}
	adSelectNames        = map[ADSelect]string{0: "stable", 1: "bandwidth", 2: "count"}
)

// String names the value as users know it.
func (v VLANProtocol) String() string { return name(vlanProtocolNames, v) }

// MarshalText gives the name.
func (v VLANProtocol) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *VLANProtocol) UnmarshalText(text []byte) error { return parse(vlanProtocolNames, v, text) }

// String names the value as users know it.
func (v BondMode) String() string { return name(bondModeNames, v) }

// MarshalText gives the name.
func (v BondMode) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *BondMode) UnmarshalText(text []byte) error { return parse(bondModeNames, v, text) }

// String names the value as users know it.
func (v BondHashPolicy) String() string { return name(hashPolicyNames, v) }

// MarshalText gives the name.
func (v BondHashPolicy) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *BondHashPolicy) UnmarshalText(text []byte) error { return parse(hashPolicyNames, v, text) }

// String names the value as users know it.
func (v LACPRate) String() string { return name(lacpRateNames, v) }

// MarshalText gives the name.
func (v LACPRate) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *LACPRate) UnmarshalText(text []byte) error { return parse(lacpRateNames, v, text) }

// String names the value as users know it.
func (v ARPValidate) String() string { return name(arpValidateNames, v) }

// MarshalText gives the name.
func (v ARPValidate) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *ARPValidate) UnmarshalText(text []byte) error { return parse(arpValidateNames, v, text) }

// String names the value as users know it.
func (v ARPAllTargets) String() string { return name(arpAllTargetsNames, v) }

// MarshalText gives the name.
func (v ARPAllTargets) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *ARPAllTargets) UnmarshalText(text []byte) error { return parse(arpAllTargetsNames, v, text) }

// String names the value as users know it.
func (v PrimaryReselect) String() string { return name(primaryReselectNames, v) }

// MarshalText gives the name.
func (v PrimaryReselect) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *PrimaryReselect) UnmarshalText(text []byte) error {
	return parse(primaryReselectNames, v, text)
}

// String names the value as users know it.
func (v FailOverMAC) String() string { return name(failOverMACNames, v) }

// MarshalText gives the name.
func (v FailOverMAC) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *FailOverMAC) UnmarshalText(text []byte) error { return parse(failOverMACNames, v, text) }

// String names the value as users know it.
func (v ADSelect) String() string { return name(adSelectNames, v) }

// MarshalText gives the name.
func (v ADSelect) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name or a number.
func (v *ADSelect) UnmarshalText(text []byte) error { return parse(adSelectNames, v, text) }
