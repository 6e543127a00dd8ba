package config

import "fmt"

// Role says which program reads a section.
type Role uint8

const (
	RoleDispatcher Role = 1 << iota
	RoleRelay

	RoleBoth = RoleDispatcher | RoleRelay
)

// sectionSpec describes one section.
type sectionSpec struct {
	name  string
	roles Role
	help  string
	keys  []key
}

// A key describes one setting. Everything that is said about a setting anywhere
// (parsing, defaults, messages, the sample file, the documentation) comes from here.
type key struct {
	name     string
	word     string // type of the value, for people
	def      string // default, as one would write it; empty: unset
	defText  string // the default in words, where it depends on the machine
	help     string
	added    bool   // not a setting of the original
	noEffect string // why the setting does nothing here; empty: it does something
	unread   bool   // nobody reads the value, so it cannot be wrong
	secret   bool   // value is never printed
	unquoted bool   // a wrong value is not printed: somebody may have put a password there

	set func(c *Config, value string) error
	get func(c *Config) string
}

// setting describes a key with a value of type T that lives where field points.
func setting[T any](name, def string, k kind[T], field func(*Config) *T, help string) key {
	return key{
		name: name, word: k.word, def: def, help: help,
		set: func(c *Config, value string) error {
			v, err := k.parse(value)
			if err != nil {
				return err
			}
			*field(c) = v
			return nil
		},
		get: func(c *Config) string { return k.print(*field(c)) },
	}
}

// ignored describes a key that is accepted and read by nothing.
func ignored(name, why, help string) key {
	k := setting(name, "", text, func(*Config) *string { return new(string) }, help)
	k.noEffect, k.unread = why, true
	return k
}

// new marks a setting that the original does not have.
func (k key) new() key { k.added = true; return k }

// orElse describes a default that is found at start.
func (k key) orElse(words string) key { k.defText = words; return k }

// hidden keeps the value out of messages.
func (k key) hidden() key { k.secret = true; return k }

// quiet keeps a wrong value out of messages.
func (k key) quiet() key { k.unquoted = true; return k }

// apply sets the value and words the refusal. An empty value leaves a setting that has
// no default unset.
func (k key) apply(c *Config, value string) error {
	if value == "" && k.def == "" {
		return nil
	}
	err := k.set(c, value)
	if err == nil {
		return nil
	}
	found := quote(value)
	if k.secret || k.unquoted {
		found = "value"
	}
	return fmt.Errorf("%s is not valid: %w", found, err)
}

func sectionNamed(name string) (sectionSpec, bool) {
	for _, s := range sections {
		if s.name == name {
			return s, true
		}
	}
	return sectionSpec{}, false
}

func (s sectionSpec) key(name string) (key, bool) {
	for _, k := range s.keys {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}
