//go:build !race

package fetch

const race = false
