//! A bigpeer server process under test.

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// What `dev-credentials.json` holds.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub url: String,
    pub app: String,
    pub api_key: String,
    pub admin_token: String,
}

/// A server process with its data directory. Killed (kill -9) when dropped.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    data_dir: PathBuf,
    port: u16,
    /// More arguments, at every start.
    args: Vec<String>,
    /// `http`, or `https` where the arguments name a certificate.
    scheme: &'static str,
    http: reqwest::Client,
}

/// The binary under test: `BIGPEER_BIN`, which `make e2e` sets.
#[must_use]
pub fn binary() -> PathBuf {
    let path = std::env::var_os("BIGPEER_BIN").map(PathBuf::from).expect("BIGPEER_BIN is not set; run `make e2e`");
    assert!(path.is_file(), "{} does not exist; run `make build`", path.display());
    path
}

/// With `BIGPEER_E2E_FDB` (see `make test-fdb`) each data directory has a log of its own in that FoundationDB cluster.
fn log_of(data_dir: &Path) -> Option<String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let cluster_file = std::env::var("BIGPEER_E2E_FDB").ok()?;
    let mut hasher = DefaultHasher::new();
    data_dir.hash(&mut hasher);
    Some(format!("--log=fdb:{cluster_file}#e2e{:016x}", hasher.finish()))
}

/// A port that was free a moment ago; kept over restarts, so that peers find the server again.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Waits until `check` answers something, at most `seconds`; then fails with `what`.
pub async fn wait_until<T, F: Future<Output = Option<T>>>(what: &str, seconds: u64, mut check: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "after {seconds} s still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Server {
    /// Starts a server over `data_dir` and waits until it is ready.
    pub async fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[]).await
    }

    /// The same with more arguments.
    pub async fn start_with(data_dir: &Path, args: &[&str]) -> Self {
        let mut server = Self {
            child: None,
            data_dir: data_dir.to_owned(),
            port: free_port(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            scheme: "http",
            http: reqwest::Client::new(),
        };
        server.spawn();
        server.ready().await;
        server
    }

    /// A server with a certificate of `bigpeer dev-cert` in `tls_dir`, spoken to by who trusts nothing else.
    pub async fn start_tls(data_dir: &Path, tls_dir: &Path, args: &[&str]) -> Self {
        let file = |name: &str| tls_dir.join(name).display().to_string();
        let flags = ["--tls-cert".to_owned(), file("cert.pem"), "--tls-key".to_owned(), file("key.pem")];
        let ca = std::fs::read(file("ca.pem")).expect("an authority");
        let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
        let http = reqwest::Client::builder().tls_built_in_root_certs(false).add_root_certificate(ca).build();
        let mut server = Self {
            child: None,
            data_dir: data_dir.to_owned(),
            port: free_port(),
            args: flags.into_iter().chain(args.iter().map(|&arg| arg.to_owned())).collect(),
            scheme: "https",
            http: http.expect("a client"),
        };
        server.spawn();
        server.ready().await;
        server
    }

    fn spawn(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the log file opens");
        let child = Command::new(binary())
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(log_of(&self.data_dir))
            .args(self.master_key())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    /// Processes on a shared log need the same master key: one is made where the arguments name none.
    fn master_key(&self) -> Option<String> {
        let given = self.args.iter().any(|arg| arg.starts_with("--master-key"));
        if given || log_of(&self.data_dir).is_none() {
            return None;
        }
        let file = self.data_dir.join("master-key");
        if !file.exists() {
            std::fs::create_dir_all(&self.data_dir).expect("the data directory");
            std::fs::write(&file, "5a".repeat(32)).expect("a master key");
        }
        Some(format!("--master-key-file={}", file.display()))
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    async fn ready(&mut self) {
        let url = format!("{}/readyz", self.url());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            if self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(exited.is_none(), "the server stopped ({exited:?}):\n{}", self.log());
            assert!(tokio::time::Instant::now() < deadline, "the server is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process can be killed");
            child.wait().expect("the process ends");
        }
    }

    /// Starts the server again on the same data and port, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.ready().await;
    }

    /// Asks the server to stop (SIGTERM) and waits until it has; true when it ended well.
    #[must_use]
    pub fn terminate(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return false };
        let asked = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
        asked.success() && child.wait().expect("the process ends").success()
    }

    /// The process id, while the server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Where the server keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where the development credentials stand.
    #[must_use]
    pub fn credentials_path(&self) -> PathBuf {
        self.data_dir.join("dev-credentials.json")
    }

    /// The development credentials.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        let text = std::fs::read_to_string(self.credentials_path()).expect("credentials were written");
        let json: Value = serde_json::from_str(&text).expect("credentials are JSON");
        let field = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{name} is missing")).to_owned();
        Credentials {
            url: field("url"),
            app: field("app"),
            api_key: field("api_key"),
            admin_token: field("admin_token"),
        }
    }

    /// A POST with the development API key; status and JSON (null when the body is none).
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_as(&self.credentials().api_key, path, body).await
    }

    /// A POST with another key.
    pub async fn post_as(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.http.post(format!("{}{path}", self.url())).bearer_auth(key).json(body).send().await;
        let answer = answer.expect("the server answers");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a whole answer");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A PUT with some key or token.
    pub async fn put_as(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.http.put(format!("{}{path}", self.url())).bearer_auth(key).json(body).send().await;
        let answer = answer.expect("the server answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Runs a DQL statement (non-strict mode) that must succeed; the whole envelope.
    pub async fn dql(&self, statement: &str, args: Value) -> Value {
        let path = format!("/{}/api/v5/store/execute", self.credentials().app);
        let (status, answer) = self.post(&path, &json!({ "statement": statement, "args": args })).await;
        assert_eq!(status, 200, "{statement}: {answer}");
        answer
    }

    /// Rows of a SQL query that must succeed.
    pub async fn sql(&self, query: &str) -> Vec<Value> {
        let path = format!("/{}/sql", self.credentials().app);
        let (status, answer) = self.post(&path, &json!({ "query": query, "format": "json" })).await;
        assert_eq!(status, 200, "{query}: {answer}");
        answer.as_array().unwrap_or_else(|| panic!("{query}: not rows: {answer}")).clone()
    }

    /// Runs a client command of the binary with this server's credentials, to its end.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Output {
        self.client(args).output().expect("the binary starts")
    }

    /// A client command of the binary with this server's credentials.
    #[must_use]
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).arg("--credentials").arg(self.credentials_path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
