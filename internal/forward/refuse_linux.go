//go:build !mediaproxy_control

package forward

// refused is nil in every program that is meant for use. With the build tag
// mediaproxy_control it is the error of a kernel that lacks a hook, so that
// test/fallback sees what an old kernel would make of this program.
func refused(string) error { return nil }
