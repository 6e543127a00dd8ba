package program

import (
	"bytes"
	"net/netip"
	"strings"
	"text/template"

	"example.org/mediaproxy/cmd/mediaproxy/version"
	"example.org/mediaproxy/internal/config"
)

// facts are what a person wants to know once everything is open.
type facts struct {
	socket        string
	relayIPs      []netip.Addr
	ports         config.PortRange
	listen        netip.AddrPort
	management    netip.AddrPort
	managementTLS bool
	certificates  string
}

// In Kamailio the dialog is created inside dlg_manage(), and the module hears of it
// only if it was engaged before; hence the order of the two.
var bannerText = template.Must(template.New("banner").Parse(`
mediaproxy {{.Version}} is ready.

  SIP proxy's socket   {{.Socket}}
  media relayed on     {{.RelayIPs}}, UDP ports {{.FirstPort}} to {{.LastPort}}: {{.Streams}}
  relays connect to    {{.Listen}}
  management           {{.Management}}; on this host: {{.Ctl}}
  certificates         {{.Certificates}}

Kamailio, in kamailio.cfg:

  loadmodule "dialog.so"
  loadmodule "mediaproxy.so"
  modparam("mediaproxy", "mediaproxy_socket", "{{.Socket}}")

  # in request_route, for each INVITE that begins a call; in this order
  if (is_method("INVITE") && !has_totag()) {
      engage_media_proxy();
      dlg_manage();
  }

OpenSIPS, in opensips.cfg:

  loadmodule "dialog.so"
  loadmodule "mediaproxy.so"
  modparam("mediaproxy", "mediaproxy_socket", "{{.Socket}}")

  # in route, for each INVITE that begins a call
  if (is_method("INVITE") && !has_totag())
      engage_media_proxy();

`))

// banner prints where everything is and what the SIP proxy needs.
func (h *host) banner(f facts) {
	ips := make([]string, len(f.relayIPs))
	for i, ip := range f.relayIPs {
		ips[i] = ip.String()
	}
	management := f.management.String()
	if f.managementTLS {
		management += " (TLS)"
	}
	ctl := "mediaproxy ctl summary"
	if dir := h.options.runtimeDir; dir != "" {
		ctl = "mediaproxy ctl --runtime-dir " + dir + " summary"
	}
	var out bytes.Buffer
	err := bannerText.Execute(&out, map[string]any{
		"Version": version.Version, "Socket": f.socket, "RelayIPs": strings.Join(ips, " and "),
		"FirstPort": f.ports.Start, "LastPort": f.ports.End - 1, "Streams": plural(f.ports.Size()/4, "stream"),
		"Listen": f.listen, "Management": management, "Ctl": ctl, "Certificates": f.certificates,
	})
	if err != nil {
		h.log.Error("the summary of the start cannot be printed", "error", err)
		return
	}
	h.terminal().Write(out.Bytes())
}
