package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/tailcfg"

	"hearth.test/interop/harness"
)

// lookup asks the client's own resolver, as a program on the device would by
// way of 100.100.100.100.
func (d *device) lookup(name, kind string) ([]string, error) {
	answer, _, err := d.local.QueryDNS(harness.Within(d.t, harness.Patience), name, kind)
	if err != nil {
		return nil, err
	}
	var message dnsmessage.Message
	if err := message.Unpack(answer); err != nil {
		return nil, err
	}
	if message.RCode != dnsmessage.RCodeSuccess {
		return nil, errors.New(message.RCode.String())
	}
	var found []string
	for _, answer := range message.Answers {
		switch body := answer.Body.(type) {
		case *dnsmessage.AResource:
			found = append(found, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			found = append(found, netip.AddrFrom16(body.AAAA).String())
		}
	}
	return found, nil
}

// resolves waits until a name is what it should be; "" is no such name.
func (d *device) resolves(name, kind, want string) {
	d.t.Helper()
	what := fmt.Sprintf("%s resolves %s %s to %q", d.Hostname, name, kind, want)
	harness.Eventually(d.t, harness.Patience, what, func() error {
		found, err := d.lookup(name, kind)
		if want == "" {
			return harness.Check(err != nil && strings.Contains(err.Error(), "NameError"), "it is %v, %v", found, err)
		}
		return harness.Check(err == nil && strings.Join(found, " ") == want, "it is %v, %v", found, err)
	})
}

// corporateResolver answers every question about an IPv4 address with the same
// one, and says where it listens.
func corporateResolver(t *testing.T, answer netip.Addr) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var message dnsmessage.Message
			if message.Unpack(buffer[:n]) != nil || len(message.Questions) != 1 {
				continue
			}
			message.Response, message.Additionals = true, nil
			question := message.Questions[0]
			if question.Type == dnsmessage.TypeA {
				message.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: answer.As4()},
				}}
			}
			if reply, err := message.Pack(); err == nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// recordsFile writes a file of records at once, as Headscale's documentation
// says it has to be done.
func recordsFile(t *testing.T, path string, records ...tailcfg.DNSRecord) {
	t.Helper()
	list := []map[string]string{}
	for _, record := range records {
		list = append(list, map[string]string{"name": record.Name, "type": record.Type, "value": record.Value})
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDNS(t *testing.T) {
	dir := t.TempDir()
	config, records := filepath.Join(dir, "hearth.toml"), filepath.Join(dir, "records.json")
	corporate := corporateResolver(t, netip.MustParseAddr("10.99.0.1"))
	configure := func(more string) {
		text := fmt.Sprintf("[dns]\nrecords_file = %q\nsplit = { \"corp.example\" = [%q] }\nsearch_domains = [\"corp.example\"]\n"+
			"records = [{ name = \"printer.home.example\", value = \"192.168.1.20\" }, { name = \"git\", value = \"beta\" }]\n%s",
			records, corporate, more)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("wildcard = [\"beta\"]\n")
	recordsFile(t, records, tailcfg.DNSRecord{Name: "nas.home.example", Type: "AAAA", Value: "fd00::5"})
	s := start(t, harness.Options{Address: address, Args: []string{"--config", config}})
	s.User("alice")
	key := s.Key("alice", "--reusable", "--expiration", "1h")
	alpha, beta := join(t, s, "alpha", key), join(t, s, "beta", key)
	alpha.sees("beta-1")
	v4, v6 := beta.addresses()

	step(t, "a device that names itself as the configuration does is not meant", func(t *testing.T) {
		alpha.resolves("beta-1.hearth.internal", "A", v4.String())
		alpha.resolves("git.hearth.internal", "A", "")
		alpha.resolves("any.beta-1.hearth.internal", "A", "")
		// It exits with 1 if it finds problems.
		if got, err := s.TryCLI("doctor", "-o", "json"); !strings.Contains(got, "hearth nodes rename -i "+s.MustNode("beta-1").ID+" beta") {
			t.Errorf("the doctor says %v\n%s", err, got)
		}
		s.CLI("nodes", "rename", "-i", s.MustNode("beta-1").ID, "beta")
	})
	step(t, "names of nodes, records, aliases and wildcards resolve", func(t *testing.T) {
		alpha.resolves("beta.hearth.internal", "A", v4.String())
		alpha.resolves("beta.hearth.internal", "AAAA", v6.String())
		alpha.resolves("printer.home.example", "A", "192.168.1.20")
		alpha.resolves("nas.home.example", "AAAA", "fd00::5")
		alpha.resolves("git.hearth.internal", "A", v4.String())
		alpha.resolves("git.hearth.internal", "AAAA", v6.String())
		alpha.resolves("any.thing.beta.hearth.internal", "A", v4.String())
		alpha.resolves("any.alpha.hearth.internal", "A", "")
		beta.resolves("self.beta.hearth.internal", "A", v4.String())
	})
	step(t, "names below a split domain are asked of its resolver", func(t *testing.T) {
		alpha.resolves("wiki.corp.example", "A", "10.99.0.1")
	})
	step(t, "the client has the settings", func(t *testing.T) {
		dns, err := alpha.local.DNSConfig(harness.Within(t, harness.Patience))
		if err != nil {
			t.Fatal(err)
		}
		if !dns.Proxied || strings.Join(dns.Domains, " ") != "hearth.internal corp.example" {
			t.Errorf("the settings are %+v", dns)
		}
		zone, ok := dns.Routes["64.100.in-addr.arpa"]
		if !ok || zone == nil || len(zone) != 0 {
			t.Errorf("the reverse zone is %v, %v", zone, ok)
		}
	})
	step(t, "a changed file arrives live", func(t *testing.T) {
		recordsFile(t, records, tailcfg.DNSRecord{Name: "cam.home.example", Type: "A", Value: "192.168.1.30"})
		alpha.resolves("cam.home.example", "A", "192.168.1.30")
		harness.Eventually(t, harness.Patience, "the record that was in the file is gone", func() error {
			dns, err := alpha.local.DNSConfig(harness.Within(t, harness.Patience))
			return harness.Check(err == nil && len(dns.ExtraRecords) == 4, "%+v, %v", dns, err)
		})
	})
	step(t, "a file with a slip changes nothing", func(t *testing.T) {
		if err := os.WriteFile(records, []byte("[{"), 0o600); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, harness.Patience, "hearth's warning", func() error {
			return harness.Check(strings.Contains(s.Log(), "invalid records file; keeping its last records"), "it is not there")
		})
		alpha.resolves("cam.home.example", "A", "192.168.1.30")
	})
	step(t, "records come and go by the command line, and survive a restart", func(t *testing.T) {
		s.CLI("dns", "add", "web", "alpha")
		own, _ := alpha.addresses()
		beta.resolves("web.hearth.internal", "A", own.String())
		s.CLI("dns", "add", "web", "192.168.1.40")
		if out, err := s.TryCLI("dns", "add", "x", "TXT", "--type", "A"); err == nil {
			t.Errorf("a record without an address is taken: %s", out)
		}
		list := s.CLI("dns", "list")
		for _, name := range []string{"printer.home.example", "cam.home.example", "web.hearth.internal"} {
			if !strings.Contains(list, name) {
				t.Errorf("%s is not listed:\n%s", name, list)
			}
		}
		recordsFile(t, records)
		s.Terminate()
		s.Run()
		s.CLI("dns", "delete", "web", "192.168.1.40")
		beta.resolves("web.hearth.internal", "A", own.String())
		s.CLI("dns", "delete", "web.hearth.internal")
		beta.resolves("web.hearth.internal", "A", "")
	})
	step(t, "an alias follows the name of its node", func(t *testing.T) {
		s.CLI("nodes", "rename", "-i", s.MustNode("beta").ID, "forge")
		alpha.resolves("git.hearth.internal", "A", "")
		s.CLI("nodes", "rename", "-i", s.MustNode("alpha").ID, "beta")
		own, _ := alpha.addresses()
		alpha.resolves("git.hearth.internal", "A", own.String())
	})
	step(t, "settings are read again at SIGHUP", func(t *testing.T) {
		configure("wildcard = [\"forge\"]\nnameservers = [\"" + corporate + "\"]\n")
		if err := syscall.Kill(s.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		alpha.resolves("www.example.org", "A", "10.99.0.1")
		alpha.resolves("any.forge.hearth.internal", "A", v4.String())
	})
}

func TestDNSForSomeNodes(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[dns]\nnameservers = [\"1.1.1.1\"]\nuse_with_exit_node = true\n" +
		"lan_domain = \"lan\"\nrouter = \"gateway\"\n" +
		"rules = [{ target = [\"tag:kids\"], nameservers = [\"1.1.1.3\"] }, { target = [\"gateway\"], override_local_dns = false }]\n"})
	s.User("alice")
	resolvers := func(m *tailcfg.MapResponse) string {
		var found []string
		for _, resolver := range m.DNSConfig.Resolvers {
			found = append(found, fmt.Sprint(resolver.Addr, resolver.UseWithExitNode))
		}
		for _, resolver := range m.DNSConfig.FallbackResolvers {
			found = append(found, fmt.Sprint("fallback ", resolver.Addr))
		}
		for _, resolver := range m.DNSConfig.Routes["lan"] {
			found = append(found, fmt.Sprint("lan ", resolver.Addr))
		}
		return strings.Join(found, ", ")
	}
	joined := func(name, key string) *harness.Stream {
		client := harness.NewClient(t, s.URL, name, 0)
		client.Join(t, key)
		return client.MustMap(t, client.MapRequest())
	}
	alice := s.Key("alice", "--reusable")
	kids := strings.TrimSpace(s.CLI("preauthkeys", "create", "--tags", "tag:kids"))
	phone, tablet := joined("phone", alice), joined("tablet", kids)
	if got := resolvers(phone.Until(t, "the first map", hasSelf)); got != "1.1.1.1true" {
		t.Errorf("the phone is told %s", got)
	}
	if got := resolvers(tablet.Until(t, "the first map", hasSelf)); got != "1.1.1.3true" {
		t.Errorf("the tablet is told %s", got)
	}
	gateway := joined("gateway", alice)
	if got := resolvers(gateway.Until(t, "the first map", hasSelf)); got != "1.1.1.1true" {
		t.Errorf("a device that names itself as the router is told %s", got)
	}
	node := s.MustNode("gateway-1")
	begin := time.Now()
	s.CLI("nodes", "rename", "-i", node.ID, "gateway")
	asRouter := gateway.Until(t, "settings of the router", func(m *tailcfg.MapResponse) bool { return m.DNSConfig != nil })
	if got := resolvers(asRouter); got != "fallback 1.1.1.1" {
		t.Errorf("the router is told %s", got)
	}
	told := phone.Until(t, "the router", func(m *tailcfg.MapResponse) bool { return m.DNSConfig != nil })
	want := fmt.Sprintf("1.1.1.1true, lan %s, lan %s", node.IPAddresses[0], node.IPAddresses[1])
	if got := resolvers(told); got != want {
		t.Errorf("the phone is told %s, not %s", got, want)
	}
	t.Logf("told of the router after %v", time.Since(begin))
}
