package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tailscale.com/tailcfg"

	"hearth.test/interop/harness"
)

// regionsFile is a map in Headscale's form with one region.
func regionsFile(t *testing.T, path string, id int) {
	t.Helper()
	text := fmt.Sprintf("# by hand\nregions:\n  1: null\n  %[1]d:\n    regionid: %[1]d\n    regioncode: vps\n    regionname: A VPS\n    nodes:\n      - name: %[1]da\n        regionid: %[1]d\n        hostname: relay.example.org\n        ipv4: 198.51.100.1\n        stunport: 3479\n        derpport: 8443\n", id)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hasRegions says whether a map has exactly these regions.
func hasRegions(m *tailcfg.DERPMap, ids ...int) bool {
	if m == nil || len(m.Regions) != len(ids) {
		return false
	}
	for _, id := range ids {
		if m.Regions[id] == nil {
			return false
		}
	}
	return true
}

func TestMoreRegionsFromFilesAndURLs(t *testing.T) {
	dir := t.TempDir()
	yaml := filepath.Join(dir, "derp.yaml")
	regionsFile(t, yaml, 901)
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	official := &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{}}
	for id := range 3 {
		id := id + 1
		official.Regions[id] = &tailcfg.DERPRegion{
			RegionID: id, RegionCode: "far", RegionName: "Far away", Latitude: 1.5,
			Nodes: []*tailcfg.DERPNode{{Name: fmt.Sprintf("%da", id), RegionID: id, HostName: "far.example.org", CanPort80: true}},
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(official)
	})}
	go server.Serve(listener)
	s := start(t, harness.Options{Address: address, Config: fmt.Sprintf(
		"[derp]\nregion_score = 0.5\nmap_files = [%q]\nmap_urls = [%q]\n", yaml, "http://"+listener.Addr().String()+"/derpmap/default")})
	s.User("alice")
	client := harness.NewClient(t, s.URL, "node", 0)
	client.Join(t, s.Key("alice"))
	stream := client.MustMap(t, client.MapRequest())
	first := stream.Until(t, "the regions of the file and the URL", func(m *tailcfg.MapResponse) bool {
		return hasRegions(m.DERPMap, 2, 3, 900, 901)
	})
	node := first.DERPMap.Regions[901].Nodes[0]
	want := tailcfg.DERPNode{Name: "901a", RegionID: 901, HostName: "relay.example.org", IPv4: "198.51.100.1", STUNPort: 3479, DERPPort: 8443}
	if *node != want {
		t.Errorf("the node is %+v", node)
	}
	if score := first.DERPMap.HomeParams.RegionScore[900]; score != 0.5 {
		t.Errorf("hearth's own region has the score %v", score)
	}
	if far := first.DERPMap.Regions[2]; far.Latitude != 1.5 || !far.Nodes[0].CanPort80 {
		t.Errorf("region 2 is %+v", far)
	}

	step(t, "a change is pushed to open streams", func(t *testing.T) {
		regionsFile(t, yaml, 902)
		if err := syscall.Kill(s.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		stream.Until(t, "the changed regions", func(m *tailcfg.MapResponse) bool {
			return hasRegions(m.DERPMap, 2, 3, 900, 902)
		})
	})
	step(t, "hearth starts without the Internet", func(t *testing.T) {
		server.Close()
		s.Terminate()
		os.Remove(yaml)
		s.Run()
		first := client.MustMap(t, client.MapRequest()).Until(t, "the first map", hasSelf)
		if !hasRegions(first.DERPMap, 1, 2, 3, 900) {
			t.Errorf("the relays are %+v", first.DERPMap.Regions)
		}
	})
}

func TestRegionForSTUNOnly(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[derp]\nstun_only = true\n"})
	s.User("alice")
	client := harness.NewClient(t, s.URL, "node", 0)
	client.Join(t, s.Key("alice"))
	first := client.MustMap(t, client.MapRequest()).Until(t, "the first map", hasSelf)
	node := first.DERPMap.Regions[900].Nodes[0]
	if !node.STUNOnly || node.STUNPort == 0 || node.DERPPort != 0 || node.CertName != "" {
		t.Errorf("the node is %+v", node)
	}
	response, err := http.Get(s.URL + "/derp")
	if err != nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("/derp: %v, error %v", response, err)
	}
}
