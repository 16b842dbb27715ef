// Package fleet holds the gateway against a thousand nodes: real programs with
// real TLS and a real store's socket, in front of light nodes on loopback
// addresses. It needs neither root nor network.
package fleet
