//! Named lives: those that tcptrace once described wrongly, and those that are easy to get wrong. Every run makes them
//! first, and reports them by name. Add the shortest script of every bug that is found.

use anyhow::{Context as _, Result};

use super::compare::{Compared, Kind};
use super::script::Life;

/// How often each is made: the outcome of some depends on a race.
const TIMES: usize = 3;

#[rustfmt::skip]
const LIVES: [(&str, &str); 47] = [
    ("active close", "v4 c.connect s.accept c.close s.close@20"),
    ("passive close", "v6 c.connect s.accept s.close c.close@20"),
    ("close of mapped addresses", "mapped c.connect s.accept c.send=100 s.recv=100 s.close c.close@20"),
    ("both close at once", "v4 c.connect s.accept c.close@20& s.close@20&"),
    ("FINs that cross", "v4 c.connect s.accept s.drop=1 c.shutwr@20 s.shutwr@20 s.undrop@20 c.close@900 s.close"),
    ("exit with an open socket", "v4 c.connect s.accept c.exit@20 s.close@20"),
    ("killed with an open socket", "v4 c.connect s.accept s.kill@20 c.close@20"),
    ("closed by a child", "v4 c.connect s.accept c.fork c.close@30 s.close@20"),
    ("closed by who got the descriptor", "v4 c.connect s.accept s.pass s.close@30 c.close@20"),
    ("the last descriptor closes", "v4 c.connect s.accept s.dup s.close@20 s.close@30 c.close@20"),
    ("unread data", "v4 c.connect s.accept c.send=1000 s.close@30 c.close@20"),
    ("linger time of 0", "v4 c.connect s.accept c.linger=0 c.close@20 s.close@20"),
    ("linger time of 0 in CLOSE_WAIT", "v4 c.connect s.accept s.shutwr c.linger=0@20 c.close@20 s.close@20"),
    ("linger time of 0 in LAST_ACK", "v4 c.connect s.accept c.shutwr c.drop=1@20 s.shutwr@20 s.linger=0@20 s.close c.close@50"),
    ("linger time of 0 in CLOSING", "v4 c.connect s.accept s.drop=1 c.shutwr@20 s.shutwr@20 c.linger=0@20 c.close s.close@50"),
    ("disconnect", "v4 c.connect s.accept c.disconnect@20 c.close@20 s.close"),
    ("disconnect after a shutdown of both sides", "v4 c.connect s.accept c.shutrdwr c.disconnect@50 c.close s.close@20"),
    ("disconnect after a shutdown of one side and then both", "v4 c.connect s.accept c.shutwr s.send=10@20 c.shutrdwr@50 c.disconnect@20 c.close@20 s.close"),
    ("unread data after a shutdown of both sides", "v4 c.connect s.accept s.send=10 c.shutrdwr@50 c.close@50 s.close@20"),
    ("unread data after a shutdown of one side", "v4 c.connect s.accept s.send=10 c.shutwr@50 c.close@50 s.close@20"),
    ("data after a shutdown of both sides", "v4 c.connect s.accept s.shutrdwr@20 c.send=1000@20 s.close@20 c.close@20"),
    ("data for an orphan", "v4 c.connect s.accept c.close s.send=100@50 s.close@20"),
    ("an orphan's FIN_WAIT2 becomes TIME_WAIT", "v4 c.connect s.accept c.close s.close@500"),
    ("an orphan's FIN_WAIT2 times out", "v4 c.connect s.accept c.close s.close@2900"),
    ("FIN_WAIT2 of TCP_LINGER2", "v4 c.connect s.accept c.linger2=3 c.close s.close@3900"),
    ("negative TCP_LINGER2", "v4 c.connect s.accept c.linger2=0 c.close@20 s.close@50"),
    ("FIN_WAIT1 behind data that nobody reads", "v4 c.connect s.accept s.send=60000 s.send=60000 s.send=60000 s.close@20 c.close@600"),
    ("data for a close whose FIN waits behind data", "v4 c.connect s.accept c.send=60000 c.send=60000 c.send=60000 c.close s.send=100@50 s.close@20"),
    ("FIN and data that come again", "v4 c.connect s.accept c.send=1000 s.drop=9 c.send=20000 c.close s.undrop@300 s.eof@50 s.close"),
    ("refused", "v4 s.unlisten c.connect"),
    ("connect that times out", "v4 s.drop=2 c.connect c.recv=1@6000 c.close"),
    ("closed while connecting", "v4 s.drop=2 c.connect c.close@900"),
    ("shut down while connecting", "v4 s.drop=2 c.connect c.shutrdwr@20 c.close@20"),
    ("disconnected while connecting", "v4 s.drop=2 c.connect c.disconnect@20 c.close@20"),
    ("killed while connecting", "v4 s.drop=2 c.connect c.kill@20"),
    ("never accepted", "v4 c.connect s.unlisten@30 c.close@30"),
    ("never accepted, and closed by the peer", "v4 c.connect c.close@20 s.unlisten@50"),
    ("Fast Open", "v4 c.fastopen=100 s.accept s.recv=100 s.close@20 c.close@20"),
    ("Fast Open closed before the handshake is done", "v4 s.drop=8 c.fastopen=5 s.accept s.recv=5 s.send=6 s.close s.undrop@300 c.recv=6@300 c.close"),
    ("destroyed by an administrator", "v4 c.connect s.accept c.ssk@20 c.close@20 s.close"),
    ("TIME_WAIT destroyed by an administrator", "v4 c.connect s.accept c.close s.close@20 c.ssk@50"),
    ("TIME_WAIT ended by a new SYN", "v4 c.connect s.accept s.close c.close@20 c.reconnect@50 s.accept s.close@20 c.close@20"),
    ("TIME_WAIT ended by a reset", "v4 c.connect s.accept s.close c.close@20 s.unlisten c.reconnect@50"),
    ("TIME_WAIT reused by connect", "v4 c.connect s.accept c.close s.close@20 c.reconnect@1300 s.accept c.close@20 s.close@20"),
    ("keepalive in vain", "v4 c.connect s.accept c.keepalive c.drop=15 c.recv=1@2900 c.close s.close"),
    ("data sent in vain", "v4 c.connect s.accept s.drop=15 c.drop=15 c.send=100 c.close@5000 s.close"),
    ("user timeout of an orphan", "v4 c.connect s.accept c.usertimeout=700 s.drop=15 c.drop=15 c.send=100 c.close@100 s.close@2500"),
];

/// All of them, each several times.
pub(super) fn lives() -> Result<Vec<Life>> {
    let mut lives = Vec::new();
    for (name, script) in LIVES {
        let life: Life = script.parse().with_context(|| format!("the script of `{name}`"))?;
        lives.extend(vec![life; TIMES]);
    }
    Ok(lives)
}

/// The names of lives that were described wrongly, or that the witnesses could not judge even once.
pub(super) fn tell(compared: &[Compared]) -> String {
    let mut text = String::new();
    let (mut wrong, mut unclear) = (0, 0);
    for ((name, _), compared) in LIVES.iter().zip(compared.chunks(TIMES)) {
        let of = |kind: Kind| compared.iter().flat_map(|life| &life.findings).find(move |found| found.kind == kind);
        let is_unclear = compared.iter().all(|life| life.findings.iter().any(|found| found.kind == Kind::Abstained));
        let (word, found) = match (of(Kind::Wrong), of(Kind::Abstained).filter(|_| is_unclear)) {
            (Some(found), _) => ("WRONG", found),
            (None, Some(found)) => ("not judged", found),
            (None, None) => continue,
        };
        wrong += usize::from(word == "WRONG");
        unclear += usize::from(word != "WRONG");
        text += &format!("- {name}: {word}: {}\n", found.what);
    }
    format!("{} named lives: {wrong} wrong, {unclear} not judged.\n{text}", LIVES.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::compare::Finding;
    use super::*;

    #[test]
    fn every_known_life_has_a_name_and_can_be_made() {
        let names: HashSet<_> = LIVES.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), LIVES.len());
        let lives = lives().expect("scripts");
        assert_eq!(lives.len(), LIVES.len() * TIMES);
        for ((_, script), life) in LIVES.iter().zip(lives.iter().step_by(TIMES)) {
            assert_eq!(*script, life.to_string());
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_name() {
        let finding = |kind| Finding { kind, what: "end".to_owned(), detail: String::new() };
        let mut compared = vec![Compared::default(); LIVES.len() * TIMES];
        compared[1].findings.push(finding(Kind::Wrong));
        compared[TIMES].findings.push(finding(Kind::Abstained));
        for life in &mut compared[2 * TIMES..3 * TIMES] {
            life.findings.push(finding(Kind::Abstained));
        }
        let expected = "47 named lives: 1 wrong, 1 not judged.\n- active close: WRONG: end\n\
                        - close of mapped addresses: not judged: end\n";
        assert_eq!(tell(&compared), expected);
    }
}
