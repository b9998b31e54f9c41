//! Help topics: examples for common tasks.

/// A topic.
#[derive(Debug)]
pub struct Topic {
    /// Its name in `hearth help NAME`.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// The examples.
    pub text: &'static str,
}

/// All topics.
pub const TOPICS: &[Topic] = &[
    Topic {
        name: "first-device",
        about: "Add a computer",
        text: "\
ADD A COMPUTER

Create a single-use key and print the command for the new device:
    hearth invite

Run that command on the device; it looks like this:
    tailscale login --login-server=http://192.168.1.1:8080 --auth-key=hskey-auth-...

See that it is there:
    hearth nodes list

For another owner than the first user:
    hearth users create anna
    hearth invite --user anna

`tailscale login` is accepted whatever the device is set to, and begins with the default settings: set
advertised routes, an exit node and the like again with `tailscale set`.
",
    },
    Topic {
        name: "phone",
        about: "Add a phone or tablet",
        text: "\
ADD A PHONE OR TABLET

Show a QR code, and scan it with the phone's camera:
    hearth invite

The page that opens says what to do in the Tailscale app of that system. If the app then shows a sign-in
page without a key, approve the device here:
    hearth pending list
    hearth pending approve --last

The phone must reach the server URL that `hearth status` shows: connect it to your Wi-Fi first.
",
    },
    Topic {
        name: "approve",
        about: "Approve or reject devices",
        text: "\
APPROVE OR REJECT DEVICES

A device that ran `tailscale login --login-server=URL` without a key waits to join. Compare its short key
with the one on the page that the device shows:
    hearth pending list
    hearth pending approve tablet --user anna
    hearth pending approve --last
    hearth pending reject tablet

A device that requests tags belongs to these and to no user:
    hearth pending approve server --tags

With `approval = true` in [node] of the configuration, a device that joined with a key may need approval
as well; `hearth nodes list` then shows \"needs approval\":
    hearth nodes approve tablet
    hearth nodes disapprove tablet
",
    },
    Topic {
        name: "routes",
        about: "Reach a LAN through a subnet router",
        text: "\
REACH A LAN THROUGH A SUBNET ROUTER

On the router (Linux needs IP forwarding, see https://tailscale.com/s/ip-forwarding):
    tailscale set --advertise-routes=192.168.1.0/24

Here: list the routes, then approve all that the router offers, or some:
    hearth nodes list-routes
    hearth nodes approve-routes router --all-offered
    hearth nodes approve-routes router --add -r 192.168.1.0/24

Without `--add` the list replaces what was approved before. On Linux clients:
    tailscale set --accept-routes
",
    },
    Topic {
        name: "exit-node",
        about: "Send all internet traffic through a node",
        text: "\
SEND ALL INTERNET TRAFFIC THROUGH A NODE

On the exit node (Linux needs IP forwarding, see https://tailscale.com/s/ip-forwarding):
    tailscale set --advertise-exit-node

Here (0.0.0.0/0 stands for IPv4 and IPv6):
    hearth nodes approve-routes nas --add -r 0.0.0.0/0

On the device that uses it:
    tailscale set --exit-node=nas
    tailscale set --exit-node=
",
    },
    Topic {
        name: "policy",
        about: "Control who may reach what",
        text: "\
CONTROL WHO MAY REACH WHAT

Without a policy every device can reach every other. Write one, check it and set it:
    hearth policy template family > policy.hujson
    hearth policy check policy.hujson
    hearth policy set policy.hujson

Ask why something is allowed or denied:
    hearth policy why laptop nas:22

Show the policy, its versions, and go back to the version before:
    hearth policy get
    hearth policy history
    hearth policy rollback

Tag a node, so that rules can name it:
    hearth nodes tag nas -t tag:server
",
    },
    Topic {
        name: "dns",
        about: "Names of devices, and more DNS records",
        text: "\
NAMES OF DEVICES, AND MORE DNS RECORDS

Every node has a name in the base domain that `hearth status` shows. Rename a node:
    hearth nodes rename old-laptop anna-laptop

Add a name for something that is not a node, or another name for a node:
    hearth dns add printer 192.168.1.20
    hearth dns add git nas

List and delete records:
    hearth dns list
    hearth dns delete printer

Resolvers, split DNS and search domains: section [dns] of /etc/hearth/hearth.toml.
",
    },
    Topic {
        name: "ssh",
        about: "Tailscale SSH, and connections to confirm",
        text: "\
TAILSCALE SSH, AND CONNECTIONS TO CONFIRM

On the machine to log in to:
    tailscale set --ssh

Who may log in is in the `ssh` section of the policy (see `hearth help policy`). Rules with
`\"action\": \"check\"` need a confirmation for each connection, which is named by a device, an ID or `--last`:
    hearth ssh list
    hearth ssh approve laptop
    hearth ssh reject laptop
",
    },
    Topic {
        name: "keys",
        about: "Preauth keys, API keys and key expiry",
        text: "\
PREAUTH KEYS, API KEYS AND KEY EXPIRY

A reusable key for a week, for one user or for servers with a tag:
    hearth preauthkeys create --user anna --reusable --expiration 7d
    hearth preauthkeys create --tags tag:server --reusable --expiration 7d
    hearth preauthkeys list

Node keys: when a device must log in again. Ends are durations, dates (until the end of that day in UTC),
times, or `never`:
    hearth nodes expire laptop --expiry 180d
    hearth nodes expire laptop --expiry 2027-01-31
    hearth nodes expire nas --disable
    hearth users set-expiry anna 90d

API keys for programs, with all rights or only some:
    hearth apikeys create --expiration 90d
    hearth apikeys create --scope devices:core:read --scope policy_file
    hearth apikeys list
",
    },
    Topic {
        name: "backup",
        about: "Back up, restore and repair the server",
        text: "\
BACK UP AND RESTORE

hearth copies its database once a day by itself. A whole backup in one file, while the server runs:
    hearth backup
    hearth backup --passphrase backup.tar.zst.age
    hearth backup --recipient age1w3tyke4gev25vaxxsvcgqu4484rf6ejpmavs57p6yz6lhy2sfs5swrvwyn backup.age

It contains all private keys. A sheet to print, with a new key for encrypted backups:
    hearth backup --sheet-file sheet.html

On the new machine, while hearth is stopped:
    hearth restore --force --settings-dir /etc/hearth backup.tar.zst.age

CHECK AND REPAIR

While hearth is stopped:
    hearth check --data
    hearth repair
",
    },
    Topic {
        name: "troubleshooting",
        about: "Find out what is wrong",
        text: "\
FIND OUT WHAT IS WRONG

    hearth doctor
    hearth status
    hearth check
    hearth wan
    hearth nodes ping laptop
    hearth policy why laptop nas:22

The log: `journalctl -u hearth`, or `logread -e hearth` on OpenWrt.
",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::root;

    /// The lines of all topics that are commands of this program.
    fn examples() -> Vec<&'static str> {
        let lines = TOPICS.iter().flat_map(|topic| topic.text.lines());
        lines
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|line| line.starts_with("hearth "))
            .filter(|line| cfg!(feature = "policy-tools") || !line.contains(" template "))
            .collect()
    }

    #[test]
    fn every_example_can_be_parsed() {
        let examples = examples();
        assert!(examples.len() > 40, "{}", examples.len());
        for line in examples {
            let line = line.split(" > ").next().unwrap_or(line);
            let parsed = root::command().try_get_matches_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }

    #[test]
    fn topics_fit_a_terminal() {
        assert_eq!(TOPICS.len(), 11);
        for line in TOPICS.iter().flat_map(|topic| topic.text.lines()) {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }
}
