package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"tailscale.com/tailcfg"
)

// observer follows a stream the way the official client does, with the official
// types, to check that what the marks tell is true.
type observer struct {
	mu    sync.Mutex
	peers map[tailcfg.NodeID]*tailcfg.Node
	// strays counts patches for nodes that it was not told of, which clients ignore.
	strays int
	err    error
}

func (o *observer) apply(text []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var response tailcfg.MapResponse
	if err := json.Unmarshal(text, &response); err != nil {
		o.err = errors.Join(o.err, err)
		return
	}
	if len(response.Peers) > 0 {
		clear(o.peers)
	}
	for _, peer := range append(response.Peers, response.PeersChanged...) {
		o.peers[peer.ID] = peer
	}
	for _, id := range response.PeersRemoved {
		delete(o.peers, id)
	}
	for _, patch := range response.PeersChangedPatch {
		peer := o.peers[patch.NodeID]
		if peer == nil {
			o.strays++
			continue
		}
		if patch.Endpoints != nil {
			peer.Endpoints = patch.Endpoints
		}
		if patch.DERPRegion != 0 {
			peer.HomeDERP = patch.DERPRegion
		}
	}
}

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
