package media

import (
	"fmt"
	"os"
	"strings"
)

const reservedPorts = "/proc/sys/net/ipv4/ip_local_reserved_ports"

// ReservePorts asks the kernel to keep a range of ports from programs that bind
// any free port. It adds to what is reserved already, for IPv4 and IPv6 alike.
// The hint of its error is the line to type instead.
func ReservePorts(first, last uint16) error {
	text, err := os.ReadFile(reservedPorts)
	if err != nil {
		return fmt.Errorf("read the reserved ports: %w", err)
	}
	merged, changed := AddReserved(strings.TrimSpace(string(text)), first, last)
	if !changed {
		return nil
	}
	if err := os.WriteFile(reservedPorts, []byte(merged), 0o644); err != nil {
		return fmt.Errorf("other programs may take media ports; as root: sysctl -w net.ipv4.ip_local_reserved_ports=%s (%w)", merged, err)
	}
	return nil
}
