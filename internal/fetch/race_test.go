//go:build race

package fetch

// race says that the detector, which takes all memory there is, is at work.
const race = true
