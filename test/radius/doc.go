// Package radius has finished calls stored by FreeRADIUS, and takes it away meanwhile.
package radius
