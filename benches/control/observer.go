package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unique"

	"tailscale.com/tailcfg"
)

// observer follows a stream the way the official client does, with the official types,
// and so has the map that the client would have
// (`updateStateFromResponse` in tailscale `control/controlclient/map.go`).
type observer struct {
	nodes *nodes

	mu    sync.Mutex
	self  *tailcfg.Node
	peers map[tailcfg.NodeID]*tailcfg.Node
	// parts are the members of the map that are replaced as a whole, and the entries of
	// those that are replaced one by one, as `UserProfiles 3`.
	parts map[string]text
	// strays counts patches for nodes that it was not told of, which clients ignore.
	strays int
	err    error
}

// text is a JSON text of which there is one copy, however many devices have it.
type text = unique.Handle[string]

func textOf(raw []byte) text { return unique.Make(string(raw)) }

func newObserver(n *nodes) *observer {
	o := &observer{nodes: n}
	o.begin()
	return o
}

// begin forgets the map: a new stream begins with a whole one.
func (o *observer) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.self, o.peers, o.parts = nil, map[tailcfg.NodeID]*tailcfg.Node{}, map[string]text{}
}

// message is a tailcfg.MapResponse whose larger parts are not decoded yet.
type message struct {
	Node              json.RawMessage
	Peers             []json.RawMessage
	PeersChanged      []json.RawMessage
	PeersRemoved      []tailcfg.NodeID
	PeersChangedPatch []json.RawMessage
	PeerSeenChange    map[tailcfg.NodeID]bool
	OnlineChange      map[tailcfg.NodeID]bool
	UserProfiles      []json.RawMessage
	PacketFilter      json.RawMessage
	PacketFilters     map[string]json.RawMessage
	DisplayMessages   map[string]json.RawMessage

	DERPMap         json.RawMessage
	DNSConfig       json.RawMessage
	SSHPolicy       json.RawMessage
	CollectServices json.RawMessage
	Health          json.RawMessage
	Domain          json.RawMessage
}

func (o *observer) apply(raw []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var m message
	err := json.Unmarshal(raw, &m)
	if err == nil {
		err = errors.Join(o.applyPeers(&m), o.applyParts(&m))
	}
	o.err = errors.Join(o.err, err)
}

func (o *observer) applyPeers(m *message) error {
	if len(m.PeerSeenChange)+len(m.OnlineChange) > 0 {
		return errors.New("a message has PeerSeenChange or OnlineChange, which hearth does not send")
	}
	whole := m.Peers
	if len(whole) > 0 {
		// Then clients heed no changes.
		clear(o.peers)
		m.PeersRemoved, m.PeersChangedPatch = nil, nil
	} else {
		whole = m.PeersChanged
	}
	for _, id := range m.PeersRemoved {
		delete(o.peers, id)
	}
	for _, raw := range whole {
		peer, err := o.nodes.decode(raw)
		if err != nil {
			return err
		}
		o.peers[peer.ID] = peer
	}
	for _, raw := range m.PeersChangedPatch {
		var patch tailcfg.PeerChange
		if err := json.Unmarshal(raw, &patch); err != nil {
			return err
		}
		peer := o.peers[patch.NodeID]
		if peer == nil {
			o.strays++
			continue
		}
		o.peers[patch.NodeID] = o.nodes.patch(peer, raw, &patch)
	}
	return nil
}

func (o *observer) applyParts(m *message) error {
	if len(m.Node) > 0 {
		var err error
		if o.self, err = o.nodes.decode(m.Node); err != nil {
			return err
		}
	}
	for name, raw := range map[string]json.RawMessage{
		"DERPMap": m.DERPMap, "DNSConfig": m.DNSConfig, "SSHPolicy": m.SSHPolicy, "Health": m.Health,
		"CollectServices": m.CollectServices, "Domain": m.Domain, "PacketFilters base": m.PacketFilter,
	} {
		if len(raw) > 0 && !isNull(raw) {
			o.parts[name] = textOf(raw)
		}
	}
	for name, entries := range map[string]map[string]json.RawMessage{
		"PacketFilters ": m.PacketFilters, messagePart: m.DisplayMessages,
	} {
		if all, found := entries["*"]; found && isNull(all) {
			maps.DeleteFunc(o.parts, func(part string, _ text) bool { return strings.HasPrefix(part, name) })
		}
		for entry, raw := range entries {
			if isNull(raw) {
				delete(o.parts, name+entry)
			} else {
				o.parts[name+entry] = textOf(raw)
			}
		}
	}
	for _, raw := range m.UserProfiles {
		var profile tailcfg.UserProfile
		if err := json.Unmarshal(raw, &profile); err != nil {
			return err
		}
		o.parts[fmt.Sprint(profilePart, int64(profile.ID))] = textOf(raw)
	}
	return nil
}

const profilePart, messagePart = "UserProfiles ", "DisplayMessages "

func isNull(raw []byte) bool { return bytes.Equal(raw, []byte("null")) }

// check waits until it sees so many whole peers.
func (o *observer) check(peers, region int) error {
	return eventually(func() error { return o.look(peers, region) })
}

func (o *observer) look(peers, region int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if len(o.peers) != peers {
		return fmt.Errorf("the observer sees %d peers instead of %d", len(o.peers), peers)
	}
	for id, peer := range o.peers {
		if len(peer.Endpoints) == 0 || peer.HomeDERP != region || peer.Name == "" || len(peer.Addresses) == 0 {
			return fmt.Errorf("the observer sees node %d with endpoints %v, home %d, name %q, addresses %v",
				id, peer.Endpoints, peer.HomeDERP, peer.Name, peer.Addresses)
		}
	}
	return nil
}

// isExpired tells whether it was told that its own key has expired.
func (o *observer) isExpired() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.self != nil && o.self.Expired
}

// itself is the device's own node, as it was told last; nil before that.
func (o *observer) itself() *tailcfg.Node {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.self
}

// fault is what it could not read.
func (o *observer) fault() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// differences says in what a map differs from a single map that was asked for now. Profiles of users
// that it does not have may be left over, as in the official client, and it has no messages for
// the person at the device: these are part of streams only.
func (o *observer) differences(fresh *observer) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all differences
	all.add("itself", o.nodes.selfText(o.self), o.nodes.selfText(fresh.self))
	for _, id := range slices.Sorted(maps.Keys(both(o.peers, fresh.peers))) {
		if here, there := o.peers[id], fresh.peers[id]; here != there {
			all.add(fmt.Sprint("node ", int64(id)), o.nodes.text(here), o.nodes.text(there))
		}
	}
	o.compareParts(fresh, &all, func(part string) bool {
		_, wanted := fresh.parts[part]
		return !isMessage(part) && (wanted || !strings.HasPrefix(part, profilePart))
	})
	return all
}

// messageDifferences says in what the messages for the person at the device differ from those of a fresh stream.
func (o *observer) messageDifferences(fresh *observer) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	fresh.mu.Lock()
	defer fresh.mu.Unlock()
	var all differences
	o.compareParts(fresh, &all, isMessage)
	return all
}

func (o *observer) compareParts(fresh *observer, all *differences, counts func(string) bool) {
	for _, part := range slices.Sorted(maps.Keys(both(o.parts, fresh.parts))) {
		here, found := o.parts[part]
		there, wanted := fresh.parts[part]
		if counts(part) && (here != there || found != wanted) {
			all.add(part, canonical(here, found), canonical(there, wanted))
		}
	}
}

func isMessage(part string) bool { return strings.HasPrefix(part, messagePart) || part == "Health" }

// differences are texts for people.
type differences []string

func (d *differences) add(what, here, there string) {
	if here != there {
		*d = append(*d, fmt.Sprintf("%s: %s", what, difference(here, there)))
	}
}

func both[K comparable, V any](one, other map[K]V) map[K]struct{} {
	keys := make(map[K]struct{}, len(one))
	for _, m := range []map[K]V{one, other} {
		for key := range m {
			keys[key] = struct{}{}
		}
	}
	return keys
}

const missing = "missing"

// canonical is a JSON text with its members in order.
func canonical(raw text, found bool) string {
	if !found {
		return missing
	}
	var value any
	if err := json.Unmarshal([]byte(raw.Value()), &value); err != nil {
		return raw.Value()
	}
	ordered, _ := json.Marshal(value)
	return string(ordered)
}

// difference shows two texts from where they begin to differ.
func difference(here, there string) string {
	const before, after = 60, 160
	same := 0
	for same < min(len(here), len(there)) && here[same] == there[same] {
		same++
	}
	cut := func(text string) string { return text[max(0, same-before):min(len(text), same+after)] }
	return fmt.Sprintf("by the stream …%s…, fresh …%s…", cut(here), cut(there))
}

// nodes decodes nodes once for all observers that are sent the same. Whoever holds a node
// does not change it.
type nodes struct {
	mu      sync.Mutex
	decoded map[string]*tailcfg.Node
	patched map[patched]*tailcfg.Node
	texts   map[*tailcfg.Node]string
}

// patched is a node with a patch to it.
type patched struct {
	of    *tailcfg.Node
	patch string
}

// nodesKept bounds each of the maps; what is forgotten is only decoded again.
const nodesKept = 4096

// keep puts something into one of the maps.
func keep[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil || len(*m) >= nodesKept {
		*m = make(map[K]V)
	}
	(*m)[key] = value
}

func (n *nodes) decode(raw []byte) (*tailcfg.Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if node := n.decoded[string(raw)]; node != nil {
		return node, nil
	}
	node := new(tailcfg.Node)
	if err := json.Unmarshal(raw, node); err != nil {
		return nil, err
	}
	keep(&n.decoded, string(raw), node)
	return node, nil
}

func (n *nodes) patch(of *tailcfg.Node, raw []byte, change *tailcfg.PeerChange) *tailcfg.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := patched{of, string(raw)}
	if node := n.patched[key]; node != nil {
		return node
	}
	node := of.Clone()
	if change.DERPRegion != 0 {
		node.HomeDERP = change.DERPRegion
	}
	if change.Cap != 0 {
		node.Cap = change.Cap
	}
	if change.CapMap != nil {
		node.CapMap = change.CapMap
	}
	if change.Endpoints != nil {
		node.Endpoints = change.Endpoints
	}
	if change.Key != nil {
		node.Key = *change.Key
	}
	if change.KeySignature != nil {
		node.KeySignature = change.KeySignature
	}
	if change.DiscoKey != nil {
		node.DiscoKey = *change.DiscoKey
	}
	if change.Online != nil {
		node.Online = change.Online
	}
	if change.LastSeen != nil {
		node.LastSeen = change.LastSeen
	}
	if change.KeyExpiry != nil {
		node.KeyExpiry = *change.KeyExpiry
	}
	keep(&n.patched, key, node)
	return node
}

// text is a node as JSON, to compare it. When an online node was last seen says nothing,
// and of the two forms of the home relay only one is patched.
func (n *nodes) text(node *tailcfg.Node) string {
	if node == nil {
		return missing
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if text, found := n.texts[node]; found {
		return text
	}
	plain := *node
	plain.LegacyDERPString = ""
	if plain.Online != nil && *plain.Online {
		plain.LastSeen = nil
	}
	raw, _ := json.Marshal(&plain)
	keep(&n.texts, node, string(raw))
	return string(raw)
}

// selfText is the own node as JSON, without what a device knows better than the server,
// which is not sent again when it changes.
func (n *nodes) selfText(node *tailcfg.Node) string {
	if node == nil {
		return missing
	}
	plain := *node
	plain.Endpoints, plain.HomeDERP, plain.LegacyDERPString = nil, 0, ""
	plain.DiscoKey, plain.Online, plain.LastSeen = tailcfg.Node{}.DiscoKey, nil, nil
	raw, _ := json.Marshal(&plain)
	return string(raw)
}
