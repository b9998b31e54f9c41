package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// kind is what is done to a tailnet in a soak, by a device or by its administrator.
type kind string

const (
	// Of a device.
	join      kind = "join"           // with a preauth key, as a new machine
	login     kind = "log in again"   // with a new node key, after logout or expiry
	logout    kind = "log out"        //
	vanish    kind = "vanish"         // an ephemeral device, which hearth deletes after a while
	reconnect kind = "reconnect"      // at once
	away      kind = "go offline"     //
	back      kind = "come back"      //
	endpoint  kind = "move"           // new endpoints
	update    kind = "update"         // a new version in the hostinfo
	rehost    kind = "new hostname"   //
	offer     kind = "offer routes"   //
	expire    kind = "expire"         // from here on by the administrator
	remove    kind = "delete"         //
	rename    kind = "rename"         //
	tag       kind = "tag"            //
	give      kind = "give to a user" //
	approve   kind = "approve routes" //

	// Of the whole tailnet.
	policy       kind = "policy"
	addKey       kind = "create a key"
	removeKey    kind = "delete a key"
	addUser      kind = "create a user"
	removeUser   kind = "delete a user"
	addRecord    kind = "create a DNS record"
	removeRecord kind = "delete a DNS record"
	backup       kind = "backup"
)

// decision is one thing that is done. Numbers begin at 1.
type decision struct {
	number int
	kind   kind
	// slot is the place of the device, if it is about one.
	slot int
	// text is what it is about beside that: a name, tags, routes, a kind of key.
	text string
}

func (d decision) String() string {
	if d.kind.isGlobal() {
		return fmt.Sprintf("%d: %s %s", d.number, d.kind, d.text)
	}
	return fmt.Sprintf("%d: device %d: %s %s", d.number, d.slot, d.kind, d.text)
}

func (k kind) isGlobal() bool {
	switch k {
	case policy, addKey, removeKey, addUser, removeUser, addRecord, removeRecord, backup:
		return true
	}
	return false
}

// durable are the kinds that change what hearth must not lose.
var durable = []kind{join, login, logout, expire, remove, rename, tag, give, approve}

// facts are what hearth must not lose of a device. Its zero value is no device.
type facts struct {
	member, expired, ephemeral bool
	// name is the one that the administrator chose; empty if it follows the hostname.
	name string
	// owner is a user, or tags.
	owner string
	// routes are those that are approved.
	routes string
}

// place is what the plan knows of one of the devices.
type place struct {
	facts
	online  bool
	offered string
}

// tailnet is what the decisions have made so far.
type tailnet struct {
	places  []place
	policy  string
	keys    []string
	users   []string
	records []string
}

func newTailnet(size int) *tailnet { return &tailnet{places: make([]place, size)} }

// The keys with which devices join: whose the device is then.
const ephemeralKey = "ephemeral"

var keyOwners = map[string]string{
	"alice": "alice", "ben": "ben", "tag:server": "tag:server", ephemeralKey: "alice",
}

// may tells whether a device can do this now, or this can be done to it.
func (p place) may(k kind) bool {
	active := p.member && p.online && !p.expired
	isTagged := strings.HasPrefix(p.owner, "tag:")
	switch k {
	case join:
		return !p.member
	case login:
		return p.member && p.expired
	case logout, reconnect, endpoint, update, rehost, offer:
		return active
	case vanish:
		return active && p.ephemeral
	case away:
		return active && !p.ephemeral
	case back:
		return p.member && !p.online && !p.expired
	case expire:
		return p.member && !p.expired && !isTagged
	case tag, give:
		return p.member && !p.expired && !p.ephemeral
	case approve:
		return p.member && p.offered != ""
	}
	return p.member
}

// after is the device after a decision.
func (p place) after(d decision) place {
	switch d.kind {
	case join:
		p = place{facts: facts{member: true, owner: keyOwners[d.text], ephemeral: d.text == ephemeralKey}, online: true}
	case login:
		p.expired, p.online = false, true
	case logout:
		p.expired, p.online = true, false
		if p.ephemeral {
			p = place{}
		}
	case vanish, remove:
		p = place{}
	case away:
		p.online = false
	case back:
		p.online = true
	case offer:
		p.offered = d.text
	case expire:
		p.expired = true
	case rename:
		p.name = d.text
	case tag, give:
		p.owner = d.text
	case approve:
		p.routes = d.text
	}
	return p
}

// apply notes what a decision did.
func (t *tailnet) apply(d decision) {
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(one string) bool { return one == d.text })
	}
	switch d.kind {
	case policy:
		t.policy = d.text
	case addKey:
		t.keys = append(t.keys, d.text)
	case removeKey:
		t.keys = without(t.keys)
	case addUser:
		t.users = append(t.users, d.text)
	case removeUser:
		t.users = without(t.users)
	case addRecord:
		t.records = append(t.records, d.text)
	case removeRecord:
		t.records = without(t.records)
	case backup:
	default:
		t.places[d.slot] = t.places[d.slot].after(d)
	}
}

// How often each kind is chosen, before what is impossible at that moment is left out.
var weights = map[kind]int{
	endpoint: 24, reconnect: 12, update: 10, join: 12, login: 10, back: 8, away: 6, rename: 5, tag: 5, approve: 5,
	logout: 4, expire: 4, remove: 4, offer: 4, give: 3, rehost: 3, vanish: 2,
	policy: 2, addRecord: 2, removeRecord: 2, addKey: 1, removeKey: 1, addUser: 1, removeUser: 1,
}

// Decisions of a batch happen at the same time; most are alone.
var batchSizes = []int{1, 1, 1, 1, 2, 2, 4, 8}

// ending is how hearth ends at the end of an epoch.
type ending struct {
	// kill is SIGKILL, otherwise it is SIGTERM.
	kill bool
	// burst is done at the same time, and the signal is sent when so many of it are answered.
	burst  []decision
	answer int
}

// epoch is the time between two starts of hearth.
type epoch struct {
	// first is done as fast as it goes.
	first   [][]decision
	batches [][]decision
	ending  ending
}

func (e *epoch) count() int {
	return countAll(e.first) + countAll(e.batches) + len(e.ending.burst)
}

func countAll(batches [][]decision) int {
	count := 0
	for _, batch := range batches {
		count += len(batch)
	}
	return count
}

// joinsAtOnce is how many devices join at the same time at first.
const joinsAtOnce = 8

// burstSize is the number of changes that are under way when hearth ends.
const burstSize = 16

// newPlan makes the decisions of a soak. They depend on nothing but the arguments.
func newPlan(seed uint64, size, epochs, each int) []epoch {
	p := planner{random: rand.New(rand.NewPCG(seed, 0)), tailnet: newTailnet(size), kinds: slices.Sorted(maps.Keys(weights))}
	var all []epoch
	for number := range epochs {
		var e epoch
		if number == 0 {
			e.first = append(e.first, []decision{p.number(decision{kind: policy, text: policies[0].name})})
			var joins []decision
			for slot := range size * 9 / 10 {
				joins = append(joins, p.number(p.about(join, slot)))
			}
			e.first = slices.AppendSeq(e.first, slices.Chunk(joins, joinsAtOnce))
		}
		for made := 0; made < each; {
			batch := p.batch(batchSizes[p.random.IntN(len(batchSizes))], p.kinds)
			made += len(batch)
			if made >= each/2 && made-len(batch) < each/2 {
				batch = append(batch, p.number(decision{kind: backup}))
			}
			e.batches = append(e.batches, batch)
		}
		// Both ways alternate, so that even a short soak has both.
		e.ending.kill = number%2 == 0
		e.ending.burst = p.batch(burstSize, durable)
		e.ending.answer = p.random.IntN(len(e.ending.burst) + 1)
		all = append(all, e)
	}
	return all
}

type planner struct {
	random  *rand.Rand
	tailnet *tailnet
	kinds   []kind
	made    int
}

// number gives a decision its number and notes what it does.
func (p *planner) number(d decision) decision {
	p.made++
	d.number = p.made
	p.tailnet.apply(d)
	return d
}

// batch chooses decisions about different devices, at most one of them about the tailnet.
func (p *planner) batch(size int, kinds []kind) []decision {
	var all []decision
	isBusy := map[int]bool{}
	hasGlobal := false
	for range size {
		k := p.choose(kinds)
		if k.isGlobal() {
			if d, possible := p.global(k); possible && !hasGlobal {
				hasGlobal = true
				all = append(all, p.number(d))
			}
			continue
		}
		slot, found := p.find(func(slot int) bool { return !isBusy[slot] && p.tailnet.places[slot].may(k) })
		if found {
			isBusy[slot] = true
			all = append(all, p.number(p.about(k, slot)))
		}
	}
	return all
}

func (p *planner) choose(kinds []kind) kind {
	sum := 0
	for _, k := range kinds {
		sum += weights[k]
	}
	at := p.random.IntN(sum)
	for _, k := range kinds {
		if at -= weights[k]; at < 0 {
			return k
		}
	}
	return kinds[0]
}

// find is the first place from a random one on that fits.
func (p *planner) find(fits func(int) bool) (int, bool) {
	size := len(p.tailnet.places)
	from := p.random.IntN(size)
	for step := range size {
		if slot := (from + step) % size; fits(slot) {
			return slot, true
		}
	}
	return 0, false
}

// about is a decision of one kind about one device.
func (p *planner) about(k kind, slot int) decision {
	d := decision{kind: k, slot: slot}
	pick := func(from ...string) string { return from[p.random.IntN(len(from))] }
	switch k {
	case join:
		d.text = pick("alice", "alice", "alice", "alice", "ben", "ben", "ben", "tag:server", "tag:server", ephemeralKey)
	case rename:
		d.text = fmt.Sprint("name-", p.made+1)
	case rehost:
		d.text = fmt.Sprint("host-", slot, "-", p.made+1)
	case tag:
		d.text = pick("tag:server", "tag:lab", "tag:lab,tag:server")
	case give:
		d.text = pick("alice", "ben")
	case offer:
		own := fmt.Sprintf("10.%d.%d.0/24", 100+slot/256, slot%256)
		d.text = pick(own, own+",192.168.50.0/24", "192.168.50.0/24", "0.0.0.0/0,::/0", "0.0.0.0/0,"+own+",::/0")
	case approve:
		d.text = pick("", p.tailnet.places[slot].offered, p.tailnet.places[slot].offered)
	}
	return d
}

// How many keys, users and DNS records there may be beside those that stay.
const extrasMax = 24

// global is a decision of one kind about the tailnet, if it is possible.
func (p *planner) global(k kind) (decision, bool) {
	t := p.tailnet
	d := decision{kind: k}
	add := func(list []string, name string) (decision, bool) {
		d.text = fmt.Sprint(name, p.made+1)
		return d, len(list) < extrasMax
	}
	take := func(list []string) (decision, bool) {
		if len(list) == 0 {
			return d, false
		}
		d.text = list[p.random.IntN(len(list))]
		return d, true
	}
	switch k {
	case policy:
		d.text = policies[p.random.IntN(len(policies))].name
		return d, d.text != t.policy
	case addKey:
		return add(t.keys, "key-")
	case removeKey:
		return take(t.keys)
	case addUser:
		return add(t.users, "guest-")
	case removeUser:
		return take(t.users)
	case addRecord:
		return add(t.records, "record-")
	case removeRecord:
		return take(t.records)
	}
	return d, false
}

// policies are the policies that take turns. Each has the same tag owners, so that tags
// that devices have stay allowed.
var policies = []struct{ name, text string }{
	{"all to all", `"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]`},
	{"users to servers", `"grants": [
		{"src": ["alice@"], "dst": ["*"], "ip": ["*"]},
		{"src": ["autogroup:member"], "dst": ["tag:server"], "ip": ["tcp:443", "tcp:22"]}],
		"ssh": [{"action": "accept", "src": ["alice@"], "dst": ["tag:server"], "users": ["root"]}]`},
	{"groups", `"groups": {"group:all": ["alice@", "ben@"]},
		"acls": [
			{"action": "accept", "src": ["group:all"], "dst": ["group:all:*", "tag:lab:80,443"]},
			{"action": "accept", "src": ["tag:lab"], "dst": ["tag:server:5432", "192.168.50.0/24:*"]}],
		"nodeAttrs": [{"target": ["tag:lab"], "attr": ["funnel"]}]`},
	{"exit nodes", `"grants": [
		{"src": ["autogroup:member"], "dst": ["autogroup:internet", "autogroup:self"], "ip": ["*"]},
		{"src": ["*"], "dst": ["tag:server", "10.0.0.0/8"], "ip": ["*"]}]`},
}

func policyText(name string) string {
	for _, p := range policies {
		if p.name == name {
			return fmt.Sprintf(`{"tagOwners": {"tag:server": ["alice@"], "tag:lab": ["alice@"]}, %s}`, p.text)
		}
	}
	return ""
}
