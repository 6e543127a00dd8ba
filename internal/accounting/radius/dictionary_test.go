package radius

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestDictionary(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"plain", "ATTRIBUTE X 105 string", "105 string"},
		{"tabs, case, comment", "attribute\tx\t\t0x69\tString\t# of a call", "105 string"},
		{"comment without a space", "ATTRIBUTE X 105 string# of a call", "105 string"},
		{"leading zero is decimal", "ATTRIBUTE X 010 string", "10 string"},
		{"flags", "ATTRIBUTE X 5 octets encrypt=1,has_tag", "5 octets"},
		{"unknown type", "ATTRIBUTE X 5 evs", "5 evs"},
		{"unknown lines", "PROTOCOL RADIUS 1\nFLAGS internal\nENUM\nATTRIBUTE X 5 string\nALIAS Y X", "5 string"},
		{"the last counts", "ATTRIBUTE X 5 string\nATTRIBUTE X 6 string", "6 string"},
		{"not of RADIUS", "ATTRIBUTE X 1105 string", "numbers above 255 are not sent"},
		{"extended", "ATTRIBUTE X 241.1 string", "it is part of another attribute"},
		{"vendor", "VENDOR V 9\nBEGIN-VENDOR V\nATTRIBUTE X 5 string\nEND-VENDOR V", "it stands inside of BEGIN-VENDOR V"},
		{"behind vendor", "BEGIN-VENDOR V\nATTRIBUTE Y 5 string\nEND-VENDOR V\nATTRIBUTE X 6 string", "6 string"},
		{"vendor's numbers", "BEGIN-VENDOR V\nATTRIBUTE X 70000 string\nEND-VENDOR V", "inside of BEGIN-VENDOR V"},
		{"TLV inside of vendor", "BEGIN-VENDOR V\nBEGIN-TLV T\nATTRIBUTE Y 1 string\nEND-TLV T\nATTRIBUTE X 1 string\nEND-VENDOR V", "inside of BEGIN-VENDOR V"},
		{"older vendor", "VENDOR V 9\nATTRIBUTE X 5 string V", "it is an attribute of the vendor V"},
		{"older vendor, another form", "ATTRIBUTE X 5 string vendor=V", "vendor vendor=V"},
		{"vendor's name is taken by none", "VENDOR V 9\nATTRIBUTE X 5 string\nATTRIBUTE X 6 string V", "5 string"},
		{"frame", "BEGIN-PROTOCOL RADIUS\nATTRIBUTE X 5 string\nEND-PROTOCOL RADIUS", "5 string"},
		{"other frame", "BEGIN-PROTOCOL DHCPv4\nATTRIBUTE X 5 string\nEND-PROTOCOL DHCPv4", "inside of BEGIN-PROTOCOL DHCPv4"},
		{"end without beginning", "END-VENDOR V\nATTRIBUTE X 5 string", "5 string"},
		{"included", "$INCLUDE more/x", "7 string"},
		{"included inside of a vendor", "BEGIN-VENDOR V\n$INCLUDE more/x\nEND-VENDOR V", "inside of BEGIN-VENDOR V"},
		{"included twice", "$INCLUDE more/x\n$include /d/more/x", "7 string"},
		{"byte order mark", "\ufeffATTRIBUTE X 5 string", "5 string"},
		{"DOS", "ATTRIBUTE X 5 string\r\n\r\n", "5 string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &reader{read: folder{"/d/main": c.text, "/d/more/x": "$INCLUDE y", "/d/more/y": "ATTRIBUTE X 7 string"}.read}
			d := r.dictionary()
			if err := d.include("/d/main", nil, ""); err != nil || len(r.problems) > 0 {
				t.Fatal(err, text(r.problems))
			}
			def, _ := d.Attribute("X")
			got := def.Why
			if def.Number != 0 {
				got = fmt.Sprintf("%d %s", def.Number, def.Type)
			}
			if !strings.Contains(got, c.want) || got == "" {
				t.Errorf("%+v, want %s", def, c.want)
			}
		})
	}
}

// A chain of files that include each other twice would be read for ever.
func TestManyDictionaries(t *testing.T) {
	files := folder{}
	for i := range 40 {
		files[fmt.Sprintf("/d/%d", i)] = fmt.Sprintf("$INCLUDE %d\n$INCLUDE %d\n", i+1, i+1)
	}
	files["/d/40"] = ""
	r := &reader{read: files.read}
	if err := r.dictionary().include("/d/0", nil, ""); err != nil || len(r.problems) == 0 || len(r.problems) > maxProblems {
		t.Errorf("%v, %d problems", err, len(r.problems))
	}
	if !strings.Contains(text(r.problems), "more than 2000 dictionaries include each other") {
		t.Error(text(r.problems))
	}
}

// All of a server's own dictionaries are read without a complaint.
func TestDictionariesOfFreeRADIUS(t *testing.T) {
	const main = "/usr/share/freeradius/dictionary"
	if _, err := os.Stat(main); err != nil {
		t.Fatal("the dictionaries of FreeRADIUS are missing (Debian package freeradius-common): run test/setup/install.sh")
	}
	r := &reader{read: readFile}
	d := r.dictionary()
	if err := d.include(main, nil, ""); err != nil || len(r.problems) > 0 {
		t.Fatal(err, text(r.problems))
	}
	for name, want := range map[string]byte{"User-Name": UserName, "NAS-IP-Address": NASIPAddress, "NAS-Identifier": NASIdentifier, "Acct-Status-Type": AcctStatusType,
		"Acct-Delay-Time": AcctDelayTime, "Acct-Input-Octets": AcctInputOctets, "Acct-Output-Octets": AcctOutputOctets, "Acct-Session-Id": AcctSessionID,
		"Acct-Session-Time": AcctSessionTime, "Acct-Input-Gigawords": AcctInputGigawords, "Acct-Output-Gigawords": AcctOutputGigawords,
		"Event-Timestamp": EventTimestamp, "NAS-IPv6-Address": NASIPv6Address} {
		if def, _ := d.Attribute(name); def.Number != want {
			t.Errorf("%s is %+v, want %d", name, def, want)
		}
	}
	if def, known := d.Attribute("Cisco-AVPair"); !known || def.Number != 0 {
		t.Errorf("Cisco-AVPair is %+v, %v", def, known)
	}
	if n, ok := d.StatusType("Interim-Update"); n != 3 || !ok {
		t.Errorf("Interim-Update is %d", n)
	}
	if d.files < 100 {
		t.Errorf("%d files were read", d.files)
	}
}

func FuzzDictionary(f *testing.F) {
	f.Add(tags+"VENDOR V 9\nBEGIN-VENDOR V\nATTRIBUTE Y 5 string\nEND-VENDOR V\n$INCLUDE other\n", "VALUE Acct-Status-Type Update 3\n")
	f.Add("$INCLUDE main\n$INCLUDE- none\nATTRIBUTE a 0xff string\nBEGIN-TLV x\n", "$INCLUDE main\nATTRIBUTE b 241.1 string")
	f.Fuzz(func(t *testing.T, main, other string) {
		files := folder{"/d/main": main, "/d/other": other}
		r := &reader{read: files.read}
		d := r.dictionary()
		if err := d.include("/d/main", nil, ""); err != nil {
			t.Fatal(err)
		}
		checkPlaces(t, files, r.problems)
		for _, p := range r.problems {
			if p.Line == 0 || p.File == "" {
				t.Errorf("problem without a place: %s", p)
			}
		}
		for name, def := range d.attributes {
			lines := strings.Split(files[def.File], "\n")
			if def.Line < 1 || def.Line > len(lines) || !strings.Contains(strings.ToLower(lines[def.Line-1]), name) {
				t.Errorf("%s is not where %+v says", name, def)
			}
			if (def.Number == 0) == (def.Why == "") {
				t.Errorf("%s: %+v", name, def)
			}
		}
	})
}
