package forward

// refused is the error of a kernel that lacks a hook. Tests set it, and so does the build
// tag mediaproxy_control, so that test/fallback sees what an old kernel would make of this
// program; in every program that is meant for use it is nil.
var refused = func(hook string) error { return nil }
