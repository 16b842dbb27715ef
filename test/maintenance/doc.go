// Package maintenance holds the life of a machine's API from a blank machine
// over its first configuration to a wiped one: the real store, controllers,
// configuration, API of machined, routerd and apid, over real TLS, with the
// client that users have. It needs neither root nor network.
package maintenance
