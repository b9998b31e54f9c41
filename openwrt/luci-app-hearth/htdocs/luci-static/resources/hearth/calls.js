'use strict';
'require baseclass';
'require rpc';

// RPC calls of the pages, answered by /usr/share/rpcd/ucode/luci.hearth.uc.
//
// A call never rejects: an answer with `error` failed, and `message` holds the reason given by hearth.

function declare(method, params) {
	const call = rpc.declare({ object: 'luci.hearth', method: method, params: params || [], expect: { '': {} } });

	return function() {
		return call.apply(null, arguments).then(function(answer) {
			// LuCI turns every failed call into an empty object.
			return Object.keys(answer).length ? answer : { error: 'backend', message: '' };
		}, function(fault) {
			return { error: 'backend', message: String(fault.message || fault) };
		});
	};
}

return baseclass.extend({
	status: declare('status'),
	doctor: declare('doctor'),
	nodes: declare('nodes'),
	pending: declare('pending'),
	sshChecks: declare('ssh_checks'),
	users: declare('users'),
	records: declare('records'),
	audit: declare('audit', [ 'before' ]),

	setEnabled: declare('set_enabled', [ 'enabled' ]),
	approveLogin: declare('approve_login', [ 'id', 'user' ]),
	rejectLogin: declare('reject_login', [ 'id' ]),
	approveSsh: declare('approve_ssh', [ 'id' ]),
	rejectSsh: declare('reject_ssh', [ 'id' ]),
	authorize: declare('authorize', [ 'id' ]),
	rename: declare('rename', [ 'id', 'name' ]),
	expire: declare('expire', [ 'id', 'never' ]),
	delete: declare('delete', [ 'id' ]),
	setRoutes: declare('set_routes', [ 'id', 'routes' ]),
	invite: declare('invite', [ 'user', 'hours' ]),
	createUser: declare('create_user', [ 'name' ]),
	addRecord: declare('add_record', [ 'name', 'type', 'value' ]),
	deleteRecord: declare('delete_record', [ 'name', 'type', 'value' ])
});
