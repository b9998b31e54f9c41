package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// administrator uses the REST API of hearth over its socket.
type administrator struct{ client *http.Client }

func newAdministrator(socket string) *administrator {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &administrator{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// statusError is an answer that is not what was asked for.
type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return e.text }

// ask sends a request with a body, if there is one, and reads the answer into answer, if there is one.
func (a *administrator) ask(ctx context.Context, method, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		text = nil
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://hearth/api/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return statusError{response.StatusCode, fmt.Sprintf("%s %s: %s: %.300s", method, path, response.Status, text)}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// listedNode is what the API says of a node.
type listedNode struct {
	ID             string
	MachineKey     string
	GivenName      string
	User           struct{ Name string }
	Tags           []string
	ApprovedRoutes []string
	IPAddresses    []string
	Expiry         *time.Time
	Ephemeral      bool
}

// facts are what the API says of what must not be lost.
func (n *listedNode) facts() facts {
	owner := n.User.Name
	if len(n.Tags) > 0 {
		owner = inOrder(strings.Join(n.Tags, ","))
	}
	return facts{
		member: true, expired: n.Expiry != nil && n.Expiry.Before(time.Now()), ephemeral: n.Ephemeral,
		name: n.GivenName, owner: owner, routes: inOrder(strings.Join(n.ApprovedRoutes, ",")),
	}
}

// agreesWith tells whether the API says what it should.
func (f facts) agreesWith(listed facts) bool {
	if f.name == "" {
		listed.name = ""
	}
	f.owner, f.routes = inOrder(f.owner), inOrder(f.routes)
	return f == listed
}

// inOrder sorts a list with commas.
func inOrder(list string) string {
	words := strings.Split(list, ",")
	slices.Sort(words)
	return strings.Join(words, ",")
}

func (a *administrator) nodes(ctx context.Context) ([]listedNode, error) {
	var answer struct{ Nodes []listedNode }
	return answer.Nodes, a.ask(ctx, "GET", "node", nil, &answer)
}

// createKey makes a preauth key for one of keyOwners, or for anything else a single-use key of alice.
func (a *administrator) createKey(ctx context.Context, users map[string]string, whose string) (id, secret string, err error) {
	body := map[string]any{"user": users["alice"], "expiration": "never"}
	if owner, isReusable := keyOwners[whose]; isReusable {
		body["reusable"], body["ephemeral"] = true, whose == ephemeralKey
		if strings.HasPrefix(owner, "tag:") {
			body["aclTags"] = []string{owner}
		} else {
			body["user"] = users[owner]
		}
	}
	var answer struct{ PreAuthKey struct{ ID, Key string } }
	err = a.ask(ctx, "POST", "preauthkey", body, &answer)
	return answer.PreAuthKey.ID, answer.PreAuthKey.Key, err
}

func (a *administrator) createUser(ctx context.Context, name string) (id string, err error) {
	var answer struct{ User struct{ ID string } }
	err = a.ask(ctx, "POST", "user", map[string]string{"name": name}, &answer)
	return answer.User.ID, err
}

// record is a DNS record.
type record struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

func newRecord(name string) record { return record{name, "A", "192.0.2.1"} }

// others are the names of what there is beside devices.
type others struct {
	users, records []string
	keys           []string // ids
	policy         string
}

func (a *administrator) others(ctx context.Context) (others, error) {
	var users struct{ Users []struct{ Name string } }
	var keys struct{ PreAuthKeys []struct{ ID string } }
	var records struct{ Records []record }
	var policy struct{ Policy string }
	for path, answer := range map[string]any{"user": &users, "preauthkey": &keys, "dns/records": &records, "policy": &policy} {
		if err := a.ask(ctx, "GET", path, nil, answer); err != nil {
			return others{}, err
		}
	}
	o := others{policy: policy.Policy}
	for _, user := range users.Users {
		o.users = append(o.users, user.Name)
	}
	for _, key := range keys.PreAuthKeys {
		o.keys = append(o.keys, key.ID)
	}
	for _, record := range records.Records {
		label, _, _ := strings.Cut(record.Name, ".")
		o.records = append(o.records, label)
	}
	slices.Sort(o.users)
	slices.Sort(o.keys)
	slices.Sort(o.records)
	return o, nil
}
