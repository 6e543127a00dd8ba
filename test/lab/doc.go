// Package lab drives calls between real phones (sipp) through a real SIP proxy
// (Kamailio) and the program, and judges them by what arrives at the phones. The
// work is done by run.sh and meter.py; see README.md. The tests here run it in each
// of its networks and count its lines as tests.
package lab
