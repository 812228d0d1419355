//! The rooms of a chat, and the host that serves their members.

use crate::output::is_hidden;
use anyhow::Result;
use net_traits::{CertHash, DynConnection, DynListener, NetConnection};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Derives a pronounceable name from the identity, with 16 hexadecimal digits of it, which are
/// too many to find another identity with the same name. Programs must compare the identities.
pub(super) fn name(identity: &CertHash) -> String {
    const HOW: [&str; 8] = ["brave", "calm", "eager", "fair", "kind", "merry", "quick", "wise"];
    const WHO: [&str; 8] = ["badger", "crane", "fox", "heron", "lynx", "otter", "owl", "seal"];
    let bytes = identity.as_bytes();
    let (how, who) = (HOW[usize::from(bytes[0]) % 8], WHO[usize::from(bytes[1]) % 8]);
    let digits = identity.to_string();
    format!("{how}-{who}-{}", &digits[4..20])
}

/// The members of a room. A peer with several connections occurs several times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    identity: CertHash,
    connection: u64,
}

/// The members of each room, with the queues of their lines.
#[derive(Default)]
struct Rooms(Mutex<BTreeMap<String, BTreeMap<Member, mpsc::Sender<String>>>>);

impl Rooms {
    /// Sends a line to all members of a room. A member that is too far behind is removed.
    fn tell(&self, room: &str, line: &str) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = rooms.get_mut(room) else { return };
        members.retain(|_, lines| lines.try_send(format!("{room}: {line}")).is_ok());
        if members.is_empty() {
            rooms.remove(room);
        }
    }

    fn enter(&self, room: &str, member: Member, lines: &mpsc::Sender<String>) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(room.to_owned()).or_default().insert(member, lines.clone());
    }

    /// Whether the member was there.
    fn leave(&self, room: &str, member: Member) -> bool {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = rooms.get_mut(room) else { return false };
        let was_there = members.remove(&member).is_some();
        if members.is_empty() {
            rooms.remove(room);
        }
        was_there
    }

    fn of(&self, member: Member) -> Vec<String> {
        let rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let with = rooms.iter().filter(|(_, members)| members.contains_key(&member));
        with.map(|(room, _)| room.clone()).collect()
    }
}

/// Hosts until the listener is closed.
pub(super) async fn host(listener: DynListener) -> Result<()> {
    let rooms = Arc::new(Rooms::default());
    let connections = AtomicU64::new(0);
    let handler = move |connection| {
        serve(connection, connections.fetch_add(1, Ordering::Relaxed), rooms.clone())
    };
    Err(net_peers::serve(&listener, handler).await.into())
}

/// Serves one member until it leaves.
async fn serve(connection: DynConnection, number: u64, rooms: Arc<Rooms>) {
    let member = Member { identity: connection.peer_identity().hash, connection: number };
    let name = name(&member.identity);
    let (lines, mut queued) = mpsc::channel::<String>(LINES_BEHIND);
    let writer = connection.clone();
    let write = tokio::spawn(async move {
        while let Some(line) = queued.recv().await {
            if writer.send(line.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    while let Ok((message, _)) = connection.recv().await {
        if message.len() > LONGEST_LINE {
            continue;
        }
        // A line break would let a member forge a line of another member.
        let text = String::from_utf8_lossy(&message).replace(is_hidden, " ");
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["/join", room] if rooms.of(member).len() < ROOMS => {
                rooms.enter(room, member, &lines);
                rooms.tell(room, &format!("{name} is here"));
            }
            ["/leave", room] => {
                if rooms.leave(room, member) {
                    rooms.tell(room, &format!("{name} left"));
                }
            }
            [] => {}
            // A line goes to all rooms of its sender.
            _ => rooms
                .of(member)
                .iter()
                .for_each(|room| rooms.tell(room, &format!("{name}: {text}"))),
        }
    }
    for room in rooms.of(member) {
        rooms.leave(&room, member);
        rooms.tell(&room, &format!("{name} left"));
    }
    write.abort();
}

/// A member that is this many lines behind is removed from its rooms.
const LINES_BEHIND: usize = 64;

/// The longest line that is forwarded, in bytes.
pub(super) const LONGEST_LINE: usize = 4096;

/// How many rooms a member may join.
const ROOMS: usize = 8;
