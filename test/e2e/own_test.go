//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ownClusters are those that this run has made: their homes, and their ids,
// which are part of the name of all that the host has of them.
type ownClusters struct{ homes, ids []string }

var own ownClusters

// note takes down the clusters below home.
func (o *ownClusters) note(home string) {
	o.homes = append(o.homes, filepath.Base(home))
	for id, dir := range claims() {
		if strings.HasPrefix(dir, home+"/") {
			o.ids = append(o.ids, id)
		}
	}
}

// has tells whether something on the host carries the name of one of them.
func (o *ownClusters) has(item string) bool {
	in := func(name string) bool { return strings.Contains(item, name) }
	return slices.ContainsFunc(o.homes, in) || slices.ContainsFunc(o.ids, in)
}

// claims are the clusters that are on this machine, by id, with their folders:
// the record that the supervisors of all users share.
func claims() map[string]string {
	var book struct {
		Claims map[string]struct{ Dir string }
	}
	data, err := os.ReadFile("/run/talos/clusters.json")
	if err != nil || json.Unmarshal(data, &book) != nil {
		return nil
	}
	dirs := map[string]string{}
	for id, c := range book.Claims {
		dirs[id] = c.Dir
	}
	return dirs
}

// ownOnly drops what the clusters of other people on this machine explain.
// Alone on the machine, every difference counts. Among others, those that carry
// the name of a cluster of this run; and sysctls, which the last cluster to
// leave restores, can't be compared.
func ownOnly(left []string, before, after host) []string {
	left = slices.Clone(left)
	for id, dir := range after.claims {
		if slices.Contains(own.ids, id) {
			left = append(left, "claim "+id+" of "+dir)
		}
	}
	if len(before.claims) == 0 && len(after.claims) == 0 {
		return left
	}
	fmt.Printf("clusters of others ran on this machine (before %v, after %v): only what is named after this run's is compared, no sysctls\n",
		before.claims, after.claims)
	return slices.DeleteFunc(left, func(item string) bool { return !own.has(item) })
}
