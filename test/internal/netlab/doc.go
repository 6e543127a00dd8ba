// Package netlab builds small internets out of network namespaces, for tests that
// need addresses, routers and NATs of their own. It needs root.
//
//	         ┌──────────────── hub ────────────────┐   routes between all links
//	Host ────┘      │              │               └──── NAT router ──── Host
//	any addresses   Host           Host                  one public       private
//	                                                     address          addresses
//
// A host's addresses are its own choice: the hub has a route to each of them, so two
// hosts may have neighbouring addresses of the same /24 and still be far apart.
//
// Namespaces have no names. They live as long as the test's process has their
// descriptors open, so nothing is left behind, whatever ends the test. A namespace
// also ends only when nothing runs in it any more: use Host.Start, which ends its
// programs with the test.
package netlab
