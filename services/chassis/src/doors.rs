//! The doors of an app: what an API key can be good for.

use serde::{Deserialize, Serialize};

/// A way into an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Statements and attachments over HTTP.
    Data,
    /// SQL: over HTTP, Flight SQL and the PostgreSQL wire protocol.
    Sql,
    /// The change feed: streams, and feeds that a key owns.
    Changes,
    /// Logins of peers, and their sessions.
    Sync,
    /// The admin API of the key's own app.
    Admin,
}

impl Door {
    /// Every door.
    pub const ALL: [Self; 5] = [Self::Data, Self::Sql, Self::Changes, Self::Sync, Self::Admin];

    /// The door as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Sql => "sql",
            Self::Changes => "changes",
            Self::Sync => "sync",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Sql => 2,
            Self::Changes => 4,
            Self::Sync => 8,
            Self::Admin => 16,
        }
    }
}

/// The doors that a key opens. In JSON a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Door>", into = "Vec<Door>")]
pub struct Doors(u8);

impl Doors {
    /// Whether `door` is among them.
    #[must_use]
    pub const fn contain(self, door: Door) -> bool {
        self.0 & door.bit() != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// All doors to data; not the admin API.
impl Default for Doors {
    fn default() -> Self {
        [Door::Data, Door::Sql, Door::Changes, Door::Sync].into_iter().collect()
    }
}

impl FromIterator<Door> for Doors {
    fn from_iter<I: IntoIterator<Item = Door>>(doors: I) -> Self {
        Self(doors.into_iter().fold(0, |sum, door| sum | door.bit()))
    }
}

impl From<Vec<Door>> for Doors {
    fn from(doors: Vec<Door>) -> Self {
        doors.into_iter().collect()
    }
}

impl From<Doors> for Vec<Door> {
    fn from(doors: Doors) -> Self {
        Door::ALL.into_iter().filter(|door| doors.contain(*door)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_doors_reads_back_in_one_order() {
        let doors: Doors = serde_json::from_str(r#"["sync","data","sync"]"#).unwrap();
        assert_eq!(serde_json::to_string(&doors).unwrap(), r#"["data","sync"]"#);
        assert!(doors.contain(Door::Sync) && !doors.contain(Door::Admin) && !Doors::default().contain(Door::Admin));
        assert!(serde_json::from_str::<Doors>(r#"["cellar"]"#).is_err());
        for door in Door::ALL {
            assert_eq!(serde_json::to_value(door).unwrap(), door.as_str());
        }
    }
}
