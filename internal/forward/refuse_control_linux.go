//go:build mediaproxy_control

package forward

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// Hooks named in the environment are refused.
func init() {
	refused = func(hook string) error {
		if slices.Contains(strings.Split(os.Getenv("MEDIAPROXY_REFUSE"), ","), hook) {
			return fmt.Errorf("%s is refused by MEDIAPROXY_REFUSE: %w", hook, ebpf.ErrNotSupported)
		}
		return nil
	}
}
