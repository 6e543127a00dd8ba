//go:build mediaproxy_control

package forward

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// refused fails for the hooks named in the environment, as on a kernel without them.
func refused(hook string) error {
	if slices.Contains(strings.Split(os.Getenv("MEDIAPROXY_REFUSE"), ","), hook) {
		return fmt.Errorf("%s is refused by MEDIAPROXY_REFUSE: %w", hook, ebpf.ErrNotSupported)
	}
	return nil
}
