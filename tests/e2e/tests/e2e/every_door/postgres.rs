//! As much of a client of PostgreSQL's protocol as it takes to ask questions: a password, simple queries, rows as text.

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::sql::Row;

pub(super) struct Session(TcpStream);

fn message(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = kind.into_iter().collect();
    out.put_u32(body.len() as u32 + 4);
    out.extend_from_slice(body);
    out
}

impl Session {
    pub(super) async fn open(address: &str, app: &str, key: &str) -> Self {
        let mut session = Self(TcpStream::connect(address).await.unwrap());
        let mut body = Vec::new();
        body.put_u32(3 << 16);
        for text in ["user", "someone", "database", app, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        session.0.write_all(&message(None, &body)).await.unwrap();
        let (kind, mut asked) = session.next().await;
        assert_eq!((kind, asked.get_u32()), (b'R', 3), "a password in clear text");
        session.0.write_all(&message(Some(b'p'), &[key.as_bytes(), &[0]].concat())).await.unwrap();
        session.answer().await.expect("the key is let in");
        session
    }

    async fn next(&mut self) -> (u8, Bytes) {
        let kind = self.0.read_u8().await.expect("a message");
        let length = self.0.read_u32().await.unwrap() as usize;
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).await.unwrap();
        (kind, body.into())
    }

    /// Rows up to where the server waits for the next question, or the error.
    async fn answer(&mut self) -> Result<Vec<Row>, String> {
        let mut answer = Ok(Vec::new());
        loop {
            let (kind, mut body) = self.next().await;
            match kind {
                b'D' => {
                    let count = body.get_u16();
                    let row = (0..count).map(|_| {
                        let length = usize::try_from(body.get_i32()).ok()?;
                        Some(String::from_utf8(body.split_to(length).to_vec()).unwrap())
                    });
                    let row = row.collect();
                    if let Ok(rows) = &mut answer {
                        rows.push(row);
                    }
                }
                b'E' => answer = Err(String::from_utf8_lossy(&body).into_owned()),
                b'Z' => return answer,
                _ => {}
            }
        }
    }

    /// The same as a statement that is prepared, bound and executed.
    pub(super) async fn prepared(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        let parse = message(Some(b'P'), &[&[0][..], sql.as_bytes(), &[0, 0, 0]].concat());
        // The portal and the statement have no names; no formats, no values, no formats.
        let bind = message(Some(b'B'), &[0; 8]);
        let execute = message(Some(b'E'), &[0; 5]);
        self.0.write_all(&[parse, bind, execute, message(Some(b'S'), &[])].concat()).await.unwrap();
        self.answer().await
    }

    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        self.0.write_all(&message(Some(b'Q'), &[sql.as_bytes(), &[0]].concat())).await.unwrap();
        self.answer().await
    }
}
