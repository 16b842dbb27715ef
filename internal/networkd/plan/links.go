package plan

import (
	"bytes"
	"reflect"
	"slices"

	"talos/internal/networkd/rtnl"
	"talos/internal/resources/network"
)

// Links plans the links that specs name: VLANs and bonds are made, links put
// into bonds, and all get their settings. What we made and nobody wants, or
// wants otherwise, goes; what others made is left alone, also where one has a
// name that is wanted. A link is never set down but to be put into a bond. What
// needs a link that another step makes comes with the next plan.
func Links(want []network.LinkSpecSpec, have []rtnl.Link) []Step {
	p := linkPlan{have: have}
	for _, l := range have {
		i := slices.IndexFunc(want, func(w network.LinkSpecSpec) bool { return w.Name == l.Name })
		if l.Ours && (i < 0 || !p.same(want[i], l)) {
			p.gone = append(p.gone, l.Status.Index)
			p.add(Step{Op: DeleteLink, Link: l})
		}
	}
	for _, w := range want {
		l, ok := p.find(w.Name)
		if !ok {
			p.create(w)
			continue
		}
		p.place(w, l)
		p.primary(w, l)
		if len(w.HardwareAddr) > 0 && l.Status.SlaveKind != network.KindBond && !bytes.Equal(w.HardwareAddr, l.Status.HardwareAddr) {
			p.add(Step{Op: SetHardwareAddr, Link: l, Spec: w})
		}
		if w.MTU != 0 && w.MTU != l.Status.MTU {
			p.add(Step{Op: SetMTU, Link: l, MTU: w.MTU})
		}
		if w.Up && !l.Up {
			p.add(Step{Op: SetUp, Link: l})
		}
	}
	return p.steps
}

// linkPlan collects steps.
type linkPlan struct {
	have  []rtnl.Link
	gone  []uint32 // indexes of those that are deleted
	steps []Step
}

func (p *linkPlan) add(s Step) { p.steps = append(p.steps, s) }

// find is a link that is there and stays.
func (p *linkPlan) find(name string) (rtnl.Link, bool) {
	for _, l := range p.have {
		if l.Name == name && !slices.Contains(p.gone, l.Status.Index) {
			return l, true
		}
	}
	return rtnl.Link{}, false
}

// create makes a logical link, once there is what it is made of.
func (p *linkPlan) create(w network.LinkSpecSpec) {
	s := Step{Op: CreateLink, Spec: w}
	switch {
	case !w.Logical:
		return
	case w.Kind == network.KindVLAN:
		parent, ok := p.find(w.ParentName)
		if !ok {
			return
		}
		s.Other = parent
	case w.Kind == network.KindBond:
	default:
		return
	}
	p.add(s)
}

// place puts a link into the bond where it belongs, or takes it out of one of
// ours where it does not.
func (p *linkPlan) place(w network.LinkSpecSpec, l rtnl.Link) {
	var in rtnl.Link
	if i := slices.IndexFunc(p.have, func(o rtnl.Link) bool { return l.Status.MasterIndex != 0 && o.Status.Index == l.Status.MasterIndex }); i >= 0 {
		in = p.have[i]
	}
	if w.BondSlave.MasterName == "" {
		if in.Ours && in.Status.Kind == network.KindBond && !slices.Contains(p.gone, in.Status.Index) {
			p.add(Step{Op: Release, Link: l})
		}
		return
	}
	bond, ok := p.find(w.BondSlave.MasterName)
	if ok && bond.Status.Kind == network.KindBond && bond.Status.Index != l.Status.MasterIndex {
		p.add(Step{Op: Enslave, Link: l, Other: bond})
	}
}

// primary chooses a bond's primary link, once that is part of it: until then
// the kernel would not show that it is.
func (p *linkPlan) primary(w network.LinkSpecSpec, bond rtnl.Link) {
	want := rtnl.BondSettings(w.BondMaster).Primary
	if !bond.Ours || bond.Status.Kind != network.KindBond || want == bond.Status.BondMaster.Primary {
		return
	}
	link, ok := p.find(want)
	if want == "" || ok && link.Status.MasterIndex == bond.Status.Index {
		p.add(Step{Op: SetPrimary, Link: bond, Other: link})
	}
}

// same tells whether a link that we made is still the one that is wanted.
func (p *linkPlan) same(w network.LinkSpecSpec, l rtnl.Link) bool {
	if !w.Logical || w.Kind != l.Status.Kind {
		return false
	}
	if w.Kind == network.KindBond {
		return sameBond(w.BondMaster, l.Status.BondMaster)
	}
	parent, ok := p.find(w.ParentName)
	return ok && parent.Status.Index == l.Status.LinkIndex && w.VLAN == l.Status.VLAN
}

// sameBond compares what is wanted of a bond: what is zero, or says nothing in
// its mode, is the kernel's to choose.
func sameBond(want, have network.BondMasterSpec) bool {
	want = rtnl.BondSettings(want)
	want.Primary = "" // which is changed in place
	w, h := reflect.ValueOf(want), reflect.ValueOf(have)
	for i := range w.NumField() {
		if f := w.Field(i); !f.IsZero() && !reflect.DeepEqual(f.Interface(), h.Field(i).Interface()) {
			return false
		}
	}
	return want.Mode == have.Mode && want.UseCarrier == have.UseCarrier
}
