package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"hearth.test/interop/harness"
)

// ledger has what a server was asked to change and what it answered. It compares that
// with what is there after a crash.
type ledger struct {
	mu      sync.Mutex
	changes []*change
	// now is the moment, by whatever clock the test has.
	now func() int
	// answered counts what was acknowledged.
	answered atomic.Int64
}

// change is one that was asked for: what fact, and what it becomes; "" is gone.
type change struct {
	fact, value string
	// begin and end are the moments of request and acknowledgment; never without one.
	begin, end int
}

const never = math.MaxInt

// errRefused is the answer to a change that was not made, and never will be.
type errRefused struct{ text string }

func (e errRefused) Error() string { return e.text }

// do makes a change of one fact. An error that is no answer leaves it open whether it
// was made.
func (l *ledger) do(fact, value string, ask func() error) error {
	l.mu.Lock()
	c := &change{fact: fact, value: value, begin: l.now(), end: never}
	l.changes = append(l.changes, c)
	l.mu.Unlock()
	err := ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, refused := err.(errRefused); refused {
		c.begin = never
	} else if err == nil {
		c.end = l.now()
		l.answered.Add(1)
	}
	return err
}

// wrong compares what is found after a crash at a moment with what was acknowledged
// until then.
func (l *ledger) wrong(found map[string]string, moment int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	allowed := map[string][]string{}
	for _, c := range l.changes {
		if _, known := allowed[c.fact]; !known {
			allowed[c.fact] = []string{""}
		}
		if c.end <= moment {
			allowed[c.fact] = []string{c.value}
		} else if c.begin <= moment && c.begin != never {
			allowed[c.fact] = append(allowed[c.fact], c.value)
		}
	}
	var wrong []string
	for fact, values := range allowed {
		if !slices.Contains(values, found[fact]) {
			wrong = append(wrong, fmt.Sprintf("%s is %q and should be one of %q", fact, found[fact], values))
		}
	}
	for fact, value := range found {
		if _, known := allowed[fact]; !known {
			wrong = append(wrong, fmt.Sprintf("%s is %q and was never asked for", fact, value))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// settle forgets what was open: what was found is what is there.
func (l *ledger) settle(found map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	facts := map[string]bool{}
	for _, c := range l.changes {
		facts[c.fact] = true
	}
	l.changes = nil
	for fact := range facts {
		l.changes = append(l.changes, &change{fact: fact, value: found[fact]})
	}
}

// admin asks a server by its socket, where nothing is limited.
type admin struct{ http *http.Client }

func newAdmin(s *harness.Server) *admin {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.Socket)
	}
	return &admin{&http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 30 * time.Second}}
}

func (a *admin) ask(method, path string, body, answer any) error {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	request, err := http.NewRequest(method, "http://hearth/api/v1"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
		if strings.Contains(string(text), "not confirmed") {
			return err
		}
		return errRefused{err.Error()}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// member is what a ledger says of a node.
type member struct {
	given, key   string
	tags, routes []string
	loggedOut    bool
}

func (m member) String() string {
	return fmt.Sprintf("%s %s tags %v routes %v logged out %v", m.given, m.key, m.tags, m.routes, m.loggedOut)
}

// restNode is the part of a node in the REST API that a ledger has.
type restNode struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"`
	GivenName      string    `json:"givenName"`
	NodeKey        string    `json:"nodeKey"`
	Expiry         time.Time `json:"expiry"`
	Tags           []string  `json:"tags"`
	ApprovedRoutes []string  `json:"approvedRoutes"`
	IPAddresses    []string  `json:"ipAddresses"`
}

func (a *admin) nodes() ([]restNode, error) {
	var list struct{ Nodes []restNode }
	return list.Nodes, a.ask("GET", "/node", nil, &list)
}

// facts are all that a ledger knows of.
func (a *admin) facts() (map[string]string, error) {
	found := map[string]string{}
	nodes, err := a.nodes()
	if err != nil {
		return nil, err
	}
	addresses := map[string]string{}
	for _, node := range nodes {
		m := member{
			given: node.GivenName, key: node.NodeKey, tags: node.Tags, routes: node.ApprovedRoutes,
			loggedOut: !node.Expiry.IsZero() && node.Expiry.Before(time.Now()),
		}
		found["node "+node.Name] = m.String()
		for _, address := range node.IPAddresses {
			if other, taken := addresses[address]; taken {
				return nil, fmt.Errorf("nodes %s and %s both have %s", other, node.ID, address)
			}
			addresses[address] = node.ID
		}
	}
	var users struct{ Users []struct{ Name string } }
	var policy struct{ Policy string }
	var records struct {
		Records []struct{ Name, Value string }
	}
	if err := a.ask("GET", "/user", nil, &users); err != nil {
		return nil, err
	}
	for _, user := range users.Users {
		found["user "+user.Name] = "there"
	}
	if err := a.ask("GET", "/policy", nil, &policy); err != nil {
		if _, none := err.(errRefused); !none {
			return nil, err
		}
	}
	if policy.Policy != "" {
		found["policy"] = policy.Policy
	}
	if err := a.ask("GET", "/dns/records", nil, &records); err != nil {
		return nil, err
	}
	for _, record := range records.Records {
		found["record "+strings.SplitN(record.Name, ".", 2)[0]] = record.Value
	}
	return found, nil
}

// load changes everything that can be changed, with clients of the official protocol
// and by the REST API.
type load struct {
	t      *testing.T
	s      *harness.Server
	l      *ledger
	admin  *admin
	secret string
	number atomic.Int64
}

// newLoad sets a tailnet up for it, which is in the ledger.
func newLoad(t *testing.T, s *harness.Server, l *ledger) *load {
	t.Helper()
	d := &load{t: t, s: s, l: l, admin: newAdmin(s)}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.user("alice"))
	must(d.policy())
	d.secret = s.Key("alice", "--reusable", "--expiration", "24h")
	return d
}

func (d *load) next() int64 { return d.number.Add(1) }

func (d *load) user(name string) error {
	return d.l.do("user "+name, "there", func() error {
		return d.admin.ask("POST", "/user", map[string]any{"name": name}, nil)
	})
}

func (d *load) policy() error {
	text := fmt.Sprintf(`{"tagOwners": {"tag:a": [], "tag:b": []},
"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]} // %d %s`, d.next(), strings.Repeat("x", int(d.next()%5000)))
	return d.l.do("policy", text, func() error {
		return d.admin.ask("PUT", "/policy", map[string]any{"policy": text}, nil)
	})
}

// others changes what is no device: users, policies, records.
func (d *load) others() error {
	var name string
	steps := []func() error{
		func() error {
			name = fmt.Sprintf("user-%d", d.next())
			return d.user(name)
		},
		d.policy,
		func() error {
			value := fmt.Sprintf("192.168.%d.%d", d.next()%250, d.next()%250)
			return d.l.do("record "+name, value, func() error {
				return d.admin.ask("POST", "/dns/records", map[string]any{"name": name, "value": value}, nil)
			})
		},
		func() error {
			var users struct{ Users []struct{ ID, Name string } }
			if err := d.admin.ask("GET", "/user", nil, &users); err != nil {
				return err
			}
			for _, user := range users.Users {
				if user.Name == name {
					return d.l.do("user "+name, "", func() error {
						return d.admin.ask("DELETE", "/user/"+user.ID, nil, nil)
					})
				}
			}
			return fmt.Errorf("user %s, which was acknowledged, is not listed", name)
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// device is the life of one: it joins, is changed in every way, and leaves.
func (d *load) device(client *harness.Client) error {
	fact := "node " + client.Hostname
	ctx := func() context.Context { return harness.Within(d.t, 5*time.Second) }
	m := member{given: client.Hostname, key: client.Node.Public().String(), tags: []string{}, routes: []string{}}
	register := func(alter func(*tailcfg.RegisterRequest)) func() error {
		return func() error {
			request := client.RegisterRequest(d.secret)
			alter(request)
			answer, err := client.Register(ctx(), request)
			if err != nil {
				return err
			}
			if answer.Error != "" || answer.AuthURL != "" {
				return errRefused{answer.Error + answer.AuthURL}
			}
			return nil
		}
	}
	if err := d.l.do(fact, m.String(), register(func(*tailcfg.RegisterRequest) {})); err != nil {
		return err
	}
	nodes, err := d.admin.nodes()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(nodes, func(n restNode) bool { return n.Name == client.Hostname })
	if at < 0 {
		return fmt.Errorf("%s, which was told that it is in, is not listed", client.Hostname)
	}
	path := "/node/" + nodes[at].ID
	post := func(path string, body any) func() error {
		return func() error { return d.admin.ask("POST", path, body, nil) }
	}
	number := d.next()
	m.given = fmt.Sprintf("renamed-%d", number)
	if err := d.l.do(fact, m.String(), post(path+"/rename/"+m.given, nil)); err != nil {
		return err
	}
	// What is soft is not in the ledger.
	update, _ := json.Marshal(client.Update(900, fmt.Sprintf("192.168.7.%d:41641", number%250+1)))
	if _, _, err := client.Post(ctx(), "/machine/map", update); err != nil {
		return err
	}
	m.routes = []string{fmt.Sprintf("10.%d.%d.0/24", number/250%250, number%250)}
	if err := d.l.do(fact, m.String(), post(path+"/approve_routes", map[string]any{"routes": m.routes})); err != nil {
		return err
	}
	old := client.Node.Public()
	client.Node = key.NewNode()
	m.key = client.Node.Public().String()
	if err := d.l.do(fact, m.String(), register(func(r *tailcfg.RegisterRequest) { r.OldNodeKey = old })); err != nil {
		return err
	}
	switch number % 3 {
	case 0:
		m.tags = []string{"tag:a"}
		return d.l.do(fact, m.String(), post(path+"/tags", map[string]any{"tags": m.tags}))
	case 1:
		m.loggedOut = true
		return d.l.do(fact, m.String(), register(func(r *tailcfg.RegisterRequest) {
			r.Auth, r.Expiry = nil, time.Unix(123, 0)
		}))
	default:
		return d.l.do(fact, "", func() error { return d.admin.ask("DELETE", path, nil, nil) })
	}
}

// run keeps so many devices busy, and everything else, until the server is gone.
func (d *load) run(devices int) (wait func()) {
	var group sync.WaitGroup
	until := func(work func() error) {
		group.Go(func() {
			for {
				if err := work(); err != nil {
					if _, refused := err.(errRefused); refused {
						d.t.Errorf("refused: %v", err)
					}
					return
				}
			}
		})
	}
	until(d.others)
	for range devices {
		until(func() error {
			client, err := harness.DialClient(d.s.URL, fmt.Sprintf("device-%d", d.next()))
			if err != nil {
				return err
			}
			defer client.Close()
			return d.device(client)
		})
	}
	return group.Wait
}
