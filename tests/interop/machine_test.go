package interop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"tailscale.com/control/controlbase"
	"tailscale.com/net/wsconn"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"hearth.test/interop/harness"
)

// TestQuestionsToNodes asks the stock client over its control connection.
func TestQuestionsToNodes(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	reusable := s.Key("alice", "--reusable")
	alpha := join(t, s, "alpha", reusable)
	beta := join(t, s, "beta", reusable)
	alpha.sees("beta")
	step(t, "echo comes back, one question after the other", func(t *testing.T) {
		for i := range 6 {
			sent := fmt.Sprintf("hello %d", i)
			if got := s.CLI("nodes", "c2n", "alpha", "echo", "-X", "POST", "-d", sent); got != sent+"\n" {
				t.Fatalf("%q came back as %q", sent, got)
			}
		}
	})
	step(t, "the map that the client has names the other device", func(t *testing.T) {
		if got := s.CLI("nodes", "c2n", "alpha", "netmap"); !strings.Contains(got, "beta") {
			t.Fatalf("the map is %.500s", got)
		}
		var prefs struct{ ControlURL string }
		if err := json.Unmarshal([]byte(s.CLI("nodes", "c2n", "alpha", "prefs")), &prefs); err != nil || prefs.ControlURL != s.URL {
			t.Fatalf("the preferences name %q, %v", prefs.ControlURL, err)
		}
	})
	step(t, "what the node does not know is its refusal", func(t *testing.T) {
		_, err := s.TryCLI("nodes", "c2n", "alpha", "/nonsense")
		if err == nil || !strings.Contains(err.Error(), "unknown c2n path") {
			t.Fatalf("%v", err)
		}
	})
	step(t, "one device pings the other in two ways", func(t *testing.T) {
		var answer struct{ Pings []tailcfg.PingResponse }
		harness.Eventually(t, harness.Patience, "both pings work", func() error {
			s.JSON(&answer, "nodes", "ping", "alpha", "beta", "-t", "disco,TSMP")
			return harness.Check(len(answer.Pings) == 2, "%+v", answer)
		})
		for _, ping := range answer.Pings {
			if ping.Err != "" || ping.LatencySeconds <= 0 {
				t.Errorf("%+v", ping)
			}
		}
	})
	step(t, "the device reaches the server by plain HTTP", func(t *testing.T) {
		if got := s.CLI("nodes", "ping", "beta"); !strings.Contains(got, "reached this server") {
			t.Fatal(got)
		}
	})
	step(t, "a device that is away is not waited for", func(t *testing.T) {
		beta.Close()
		harness.Eventually(t, harness.Patience, "it is known to be away", func() error {
			_, err := s.TryCLI("nodes", "c2n", "beta", "echo")
			return harness.Check(err != nil && strings.Contains(err.Error(), "not connected"), "%v", err)
		})
	})
}

// TestAnswersOfOthersAreNotTaken has a stranger answer a question that was put
// to somebody else.
func TestAnswersOfOthersAreNotTaken(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	asked, other := harness.NewClient(t, s.URL, "asked", 0), harness.NewClient(t, s.URL, "other", 0)
	for _, client := range []*harness.Client{asked, other} {
		client.Join(t, s.Key("alice"))
	}
	stream := asked.MustMap(t, asked.MapRequest())
	if _, err := stream.Next(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		out, err := s.TryCLI("nodes", "c2n", "asked", "/some/path?x=1")
		said <- fmt.Sprint(out, err)
	}()
	var ping *tailcfg.PingRequest
	for ping == nil {
		message, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		ping = message.PingRequest
	}
	if ping.Types != "c2n" || !strings.HasPrefix(string(ping.Payload), "GET /some/path?x=1 HTTP/1.1\r\n") {
		t.Fatalf("%+v", ping)
	}
	at, err := url.Parse(ping.URL)
	if err != nil {
		t.Fatal(err)
	}
	answer := []byte("HTTP/1.1 200 OK\r\n\r\nmine")
	for _, try := range []struct {
		who    *harness.Client
		path   string
		status int
	}{
		{other, at.Path, http.StatusNotFound},
		{asked, at.Path + "0", http.StatusNotFound},
		{asked, at.Path, http.StatusNoContent},
		{asked, at.Path, http.StatusNotFound},
	} {
		if try.status == http.StatusNotFound && try.who == asked && try.path == at.Path {
			// The call is over once the one who asked has the answer.
			if got := <-said; got != "mine\n<nil>" {
				t.Fatalf("the command line says %q", got)
			}
		}
		status, text, err := try.who.Post(harness.Within(t, harness.Patience), try.path, answer)
		if err != nil || status != try.status {
			t.Fatalf("%s from %s: %d %s, %v", try.path, try.who.Hostname, status, text, err)
		}
	}
}

// TestSmallRequests sends what else clients ask of a control server.
func TestSmallRequests(t *testing.T) {
	s := startHTTP(t)
	s.User("alice")
	client, other := harness.NewClient(t, s.URL, "client", 0), harness.NewClient(t, s.URL, "other", 0)
	client.Join(t, s.Key("alice"))
	other.Join(t, s.Key("alice"))
	send := func(who *harness.Client, method, path string, body any, wanted int) []byte {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		status, answer, err := who.Do(harness.Within(t, harness.Patience), method, path, text)
		if err != nil || status != wanted {
			t.Fatalf("%s %s: %d %s, %v", method, path, status, answer, err)
		}
		return answer
	}
	node := client.Node.Public()
	step(t, "health is kept and shown", func(t *testing.T) {
		request := tailcfg.HealthChangeRequest{Subsys: "dns", Error: "no resolver", NodeKey: node}
		send(client, "POST", "/machine/update-health", request, http.StatusNoContent)
		if got := s.CLI("nodes", "show", "client"); !strings.Contains(got, "dns: no resolver") {
			t.Fatal(got)
		}
		request.Error = ""
		send(client, "POST", "/machine/update-health", request, http.StatusNoContent)
		if got := s.CLI("nodes", "show", "client"); strings.Contains(got, "resolver") {
			t.Fatal(got)
		}
	})
	step(t, "features are explained", func(t *testing.T) {
		for _, feature := range []string{"serve", "funnel", "teleport"} {
			request := tailcfg.QueryFeatureRequest{Feature: feature, NodeKey: node}
			var answer tailcfg.QueryFeatureResponse
			body := send(client, "POST", "/machine/feature/query", request, http.StatusOK)
			if err := harness.Strict(body, &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Complete || answer.ShouldWait || answer.Text == "" {
				t.Fatalf("%s: %+v", feature, answer)
			}
		}
	})
	step(t, "attributes are kept until they are taken away", func(t *testing.T) {
		update := func(values tailcfg.AttrUpdate, wanted int) {
			t.Helper()
			request := tailcfg.SetDeviceAttributesRequest{Version: client.Version, NodeKey: node, Update: values}
			send(client, "PATCH", "/machine/set-device-attr", request, wanted)
		}
		// Policies speak of devices that have asked for a map.
		client.MustMap(t, client.MapRequest())
		update(tailcfg.AttrUpdate{"custom:tier": "gold"}, http.StatusForbidden)
		setPolicy(t, s, `{"nodeAttrs": [{"target": ["*"], "attr": ["hearth:set-device-attr"]}]}`)
		update(tailcfg.AttrUpdate{"custom:tier": "gold", "custom:n": 3}, http.StatusOK)
		update(tailcfg.AttrUpdate{"custom:n": nil, "custom:on": true}, http.StatusOK)
		update(tailcfg.AttrUpdate{"node:os": "windows"}, http.StatusBadRequest)
		update(tailcfg.AttrUpdate{"custom:tier": []string{"x"}}, http.StatusBadRequest)
		s.Terminate()
		s.Run()
		if got := s.CLI("nodes", "attributes", "client"); got != "custom:on=true\ncustom:tier=\"gold\"\n" {
			t.Fatalf("%q", got)
		}
		if got := s.CLI("nodes", "attributes", "client", "custom:on="); got != "custom:tier=\"gold\"\n" {
			t.Fatalf("%q", got)
		}
	})
	step(t, "the audit is kept", func(t *testing.T) {
		request := tailcfg.AuditLogRequest{
			Version: client.Version, NodeKey: node, Action: tailcfg.AuditNodeDisconnect,
			Details: "going \x1b[31m home", Timestamp: time.Now(),
		}
		send(client, "POST", "/machine/audit-log", request, http.StatusOK)
		if got := s.CLI("audit"); !strings.Contains(got, "DISCONNECT_NODE") || strings.Contains(got, "\x1b") {
			t.Fatalf("%q", got)
		}
	})
	step(t, "nobody speaks for another node", func(t *testing.T) {
		for path, method := range map[string]string{
			"/machine/update-health": "POST", "/machine/feature/query": "POST", "/machine/set-dns": "POST",
			"/machine/id-token": "POST", "/machine/audit-log": "POST", "/machine/set-device-attr": "PATCH",
			"/machine/ssh/notify": "POST",
		} {
			send(other, method, path, map[string]any{"NodeKey": node}, http.StatusUnauthorized)
			send(other, method, path, map[string]any{"NodeKey": key.NewNode().Public()}, http.StatusNotFound)
			send(other, method, path, map[string]any{}, http.StatusBadRequest)
			send(other, "GET", path, nil, http.StatusMethodNotAllowed)
		}
		id := s.MustNode("client").ID
		send(other, "GET", "/machine/ssh/action/1/to/"+id+"?local_user=root", nil, http.StatusUnauthorized)
		// A node that does not exist looks the same.
		send(other, "GET", "/machine/ssh/action/1/to/4711?local_user=root", nil, http.StatusUnauthorized)
	})
	step(t, "what there is not is said so", func(t *testing.T) {
		record := tailcfg.SetDNSRequest{
			Version: client.Version, NodeKey: node, Name: "_acme-challenge.client.hearth.internal", Type: "TXT", Value: "x",
		}
		send(client, "POST", "/machine/set-dns", record, http.StatusNotImplemented)
		record.Type = "A"
		send(client, "POST", "/machine/set-dns", record, http.StatusBadRequest)
		send(client, "POST", "/machine/id-token", tailcfg.TokenRequest{NodeKey: node, Audience: "x"}, http.StatusNotImplemented)
		send(client, "GET", "/machine/tka/bootstrap", map[string]any{"NodeKey": node}, http.StatusNotImplemented)
		send(client, "POST", "/machine/webclient/init/1/to/2", nil, http.StatusNotImplemented)
		event := tailcfg.SSHEventNotifyRequest{NodeKey: node, EventType: 1, SrcNode: 2, LocalUser: "root"}
		send(client, "POST", "/machine/ssh/notify", event, http.StatusCreated)
	})
	step(t, "a client is told who it is", func(t *testing.T) {
		who := string(send(client, "GET", "/machine/whoami", nil, http.StatusOK))
		if !strings.Contains(who, "client of alice") || strings.Contains(who, "other") {
			t.Fatal(who)
		}
	})
	step(t, "a check that the policy does not ask for lets nobody in", func(t *testing.T) {
		path := fmt.Sprintf("/machine/ssh/action/%s/to/%s?local_user=root", s.MustNode("other").ID, s.MustNode("client").ID)
		var action tailcfg.SSHAction
		if err := harness.Strict(send(client, "GET", path, nil, http.StatusOK), &action); err != nil {
			t.Fatal(err)
		}
		if !action.Reject || action.Accept || action.HoldAndDelegate != "" {
			t.Fatalf("%+v", action)
		}
		unknown := fmt.Sprintf("/machine/ssh/action/4711/to/%s?local_user=root", s.MustNode("client").ID)
		var same tailcfg.SSHAction
		if err := harness.Strict(send(client, "GET", unknown, nil, http.StatusOK), &same); err != nil || !reflect.DeepEqual(same, action) {
			t.Fatalf("%+v, %v", same, err)
		}
	})
}

// TestControlOverWebSocket connects as the client in a browser does.
func TestControlOverWebSocket(t *testing.T) {
	s := startHTTP(t)
	serverKey, err := harness.FetchServerKey(s.URL, tailcfg.CurrentCapabilityVersion)
	if err != nil {
		t.Fatal(err)
	}
	machine := key.NewMachine()
	handshake, finish, err := controlbase.ClientDeferred(machine, serverKey, uint16(tailcfg.CurrentCapabilityVersion))
	if err != nil {
		t.Fatal(err)
	}
	const protocol = "tailscale-control-protocol"
	dial := func(query url.Values, protocols ...string) *websocket.Conn {
		t.Helper()
		conn, response, err := websocket.Dial(harness.Within(t, harness.Patience), s.URL+"/ts2021?"+query.Encode(),
			&websocket.DialOptions{Subprotocols: protocols, HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}}})
		if err != nil {
			t.Fatalf("dial: %v (%v)", err, response)
		}
		t.Cleanup(func() { conn.CloseNow() })
		return conn
	}
	query := url.Values{"X-Tailscale-Handshake": {base64.StdEncoding.EncodeToString(handshake)}}
	conn := dial(query, protocol)
	if conn.Subprotocol() != protocol {
		t.Fatalf("subprotocol %q", conn.Subprotocol())
	}
	stream := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, s.HTTP)
	noise, err := finish(harness.Within(t, harness.Patience), stream)
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	client, err := new(http2.Transport).NewClientConn(noise)
	if err != nil {
		t.Fatal(err)
	}
	// More than one message in both directions, one of them larger than a WebSocket message.
	for range 20 {
		body := strings.NewReader(`{"NodeKey":"` + strings.Repeat("x", 20_000) + `"}`)
		request, err := http.NewRequestWithContext(harness.Within(t, harness.Patience), "POST", "https://unused/machine/audit-log", body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Fatalf("audit-log: %s", response.Status)
		}
		request, err = http.NewRequestWithContext(harness.Within(t, harness.Patience), "GET", "https://unused/machine/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err = client.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		who, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !strings.Contains(string(who), machine.Public().String()) {
			t.Fatalf("whoami: %s %s, %v", response.Status, who, err)
		}
	}
	for name, misused := range map[string]*websocket.Conn{
		"no handshake":     dial(nil, protocol),
		"no subprotocol":   dial(query),
		"other protocol":   dial(query, "derp"),
		"broken handshake": dial(url.Values{"X-Tailscale-Handshake": {"!"}}, protocol),
	} {
		_, _, err := misused.Read(harness.Within(t, harness.Patience))
		if got := websocket.CloseStatus(err); got != websocket.StatusPolicyViolation {
			t.Errorf("%s: closed with %v, %v", name, got, err)
		}
	}
}

// TestNoticesInMaps reads what a map says beside the network.
func TestNoticesInMaps(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[clients]\n" +
		"addresses = [\"203.0.113.5\", \"192.168.1.1\"]\nlatest_version = \"1.999.0\"\n"})
	s.User("alice")
	client := harness.NewClient(t, s.URL, "client", 0)
	client.Join(t, s.Key("alice"))
	stream := client.MustMap(t, client.MapRequest())
	first, err := stream.Next()
	if err != nil {
		t.Fatal(err)
	}
	if version := first.ClientVersion; version == nil || version.RunningLatest || version.LatestVersion != "1.999.0" {
		t.Errorf("client version: %+v", version)
	}
	if plan := first.ControlDialPlan; plan == nil || len(plan.Candidates) != 2 {
		t.Errorf("dial plan: %+v", plan)
	} else {
		for _, candidate := range plan.Candidates {
			if !candidate.IP.IsValid() || candidate.DialTimeoutSec < 1 {
				t.Errorf("candidate: %+v", candidate)
			}
		}
	}
	const page = "https://example.com/hello"
	s.CLI("nodes", "open", "client", page)
	for {
		message, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if message.PopBrowserURL == page {
			break
		}
	}
}
