//! The condition of a flight recorder: rules of the diagnosis and figures, joined by `and`, `or` and `not`. Pure.

mod alarm;
mod parse;

use std::collections::HashSet;
use std::fmt;

pub use self::alarm::{Alarm, Ground, News};
pub use self::parse::{Known, WhenError};
use crate::model::tcp::State;
use crate::study::diagnose::finding::{Id, Severity};

/// When to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: Box<str>,
    root: Node,
    /// What it is made of, each once.
    atoms: Vec<Atom>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Its place among the atoms.
    Atom(usize),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

/// What holds or does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Atom {
    /// The rule has found something of this severity or a higher one.
    Rule(Id, Severity),
    /// A figure compares with a number like this.
    Figure(Figure, Operator, f64),
}

/// What is compared with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Figure {
    /// How many sockets are in a state.
    Sockets(State),
    /// A counter of the kernel (`TcpExt.ListenOverflows`): by how much it grows in a second.
    Growth(Box<str>),
    /// A level that the kernel shows (`sockstat.TCP.orphan`).
    Level(Box<str>),
}

/// How a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    More,
    AtLeast,
    Less,
    AtMost,
    Equal,
    Other,
}

impl Condition {
    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is made of.
    pub fn atoms(&self) -> &[Atom] {
        &self.atoms
    }

    /// The rules in it, each once.
    pub fn rules(&self) -> Vec<Id> {
        let rules = self.atoms.iter().filter_map(|atom| if let Atom::Rule(id, _) = atom { Some(*id) } else { None });
        let mut rules: Vec<Id> = rules.collect();
        let mut known = HashSet::new();
        rules.retain(|id| known.insert(*id));
        rules
    }

    /// The figures in it.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.atoms.iter().filter_map(|atom| if let Atom::Figure(figure, ..) = atom { Some(figure) } else { None })
    }

    /// Whether it holds, given which of its atoms do.
    fn holds(&self, atoms: &[bool]) -> bool {
        self.root.holds(atoms)
    }
}

impl Node {
    fn holds(&self, atoms: &[bool]) -> bool {
        match self {
            Self::Atom(place) => atoms.get(*place) == Some(&true),
            Self::Not(node) => !node.holds(atoms),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(atoms)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(atoms)),
        }
    }
}

impl Operator {
    /// Whether a figure compares like this. An unknown one never does.
    pub fn holds(self, figure: Option<f64>, number: f64) -> bool {
        figure.is_some_and(|figure| match self {
            Self::More => figure > number,
            Self::AtLeast => figure >= number,
            Self::Less => figure < number,
            Self::AtMost => figure <= number,
            // They are counts, and whole.
            Self::Equal => (figure - number).abs() < f64::EPSILON,
            Self::Other => (figure - number).abs() >= f64::EPSILON,
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sockets(state) => f.write_str(state.as_str()),
            Self::Growth(name) | Self::Level(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::More => ">",
            Self::AtLeast => ">=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::Other => "!=",
        })
    }
}
