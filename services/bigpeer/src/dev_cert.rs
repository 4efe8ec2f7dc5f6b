//! `bigpeer dev-cert`: a certificate for local use, and the authority that vouches for it. The authority is made once, so that
//! whoever trusts it goes on trusting the certificates that are made later.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bigpeer_types::{Clock, SystemClock};
use clap::Args;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::failure::Failure;
use crate::output;

/// How long a certificate is good for, in days; browsers accept no more.
const DAYS: i32 = 397;
/// How long the authority is good for, in years.
const CA_YEARS: i32 = 10;

/// Flags of `bigpeer dev-cert`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bigpeer dev-cert                             for localhost, 127.0.0.1 and ::1, in ./tls
  bigpeer dev-cert --host till.local --host 192.168.1.20
  bigpeer serve --tls-cert tls/cert.pem --tls-key tls/key.pem
  bigpeer dql --ca-file tls/ca.pem --url https://localhost:8080 'SELECT * FROM flights LIMIT 3'
It is for development: whoever has tls/ca-key.pem can pretend to be any server to those who trust tls/ca.pem.")]
pub(crate) struct DevCertArgs {
    /// Directory for ca.pem, ca-key.pem, cert.pem and key.pem; an authority that is there is used again
    #[arg(long, default_value = "tls", value_name = "DIR")]
    dir: PathBuf,
    /// A further name or address of the server; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

/// Makes the files, and says what to do with them.
pub(crate) fn run(args: &DevCertArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).map_err(|error| cannot("make", dir, &error))?;
    let today = today()?;
    let authority = authority(dir, today)?;
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    hosts.extend(args.hosts.iter().cloned());
    let end = later(today, DAYS)?;
    let (cert, key) = certificate(&authority, &hosts, end).map_err(|error| refused(&error))?;
    write(&dir.join("key.pem"), &key, 0o600)?;
    write(&dir.join("cert.pem"), &cert, 0o644)?;
    let shown = dir.display();
    output::raw(
        format!(
            "{shown}/cert.pem and {shown}/key.pem are for {}, until {end}. Try:
  bigpeer serve --tls-cert {shown}/cert.pem --tls-key {shown}/key.pem
  curl --cacert {shown}/ca.pem https://localhost:8080/healthz
Commands of bigpeer trust it with --ca-file {shown}/ca.pem (or BIGPEER_CA_FILE).
",
            hosts.join(", ")
        )
        .as_bytes(),
    )
}

/// The authority of `dir`, made now if there is none.
fn authority(dir: &Path, today: Date) -> Result<Issuer<'static, KeyPair>, Failure> {
    let (cert, key) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| refused(&error))?;
    params.distinguished_name = named("bigpeer development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if cert.exists() && key.exists() {
        let pem = std::fs::read_to_string(&key).map_err(|error| cannot("read", &key, &error))?;
        let pair = KeyPair::from_pem(&pem).map_err(|error| cannot("use", &key, &error))?;
        return Ok(Issuer::new(params, pair));
    }
    let end = later(today, CA_YEARS * 365)?;
    params.not_before = time_of(today);
    params.not_after = time_of(end);
    let pair = KeyPair::generate().map_err(|error| refused(&error))?;
    let made = params.self_signed(&pair).map_err(|error| refused(&error))?;
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&cert, &made.pem(), 0o644)?;
    Ok(Issuer::new(params, pair))
}

/// A server's certificate and key in PEM.
fn certificate(
    authority: &Issuer<'static, KeyPair>,
    hosts: &[String],
    end: Date,
) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = named("bigpeer development server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // As old as a certificate may be with that end, so that clocks that are behind accept it.
    params.not_before = time_of(end.saturating_sub(DAYS.days()));
    params.not_after = time_of(end);
    let pair = KeyPair::generate()?;
    Ok((params.signed_by(&pair, authority)?.pem(), pair.serialize_pem()))
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn today() -> Result<Date, Failure> {
    let now_ms = i64::try_from(SystemClock.now_ms()).unwrap_or(i64::MAX);
    let now = Timestamp::from_millisecond(now_ms);
    let now = now.map_err(|error| Failure::new(format!("the machine's clock cannot be right: {error}")))?;
    Ok(now.to_zoned(TimeZone::UTC).date())
}

fn later(date: Date, days: i32) -> Result<Date, Failure> {
    date.checked_add(days.days()).map_err(|error| Failure::new(format!("the machine's clock cannot be right: {error}")))
}

fn time_of(date: Date) -> time::OffsetDateTime {
    let part = |number: i8| u8::try_from(number).unwrap_or(1);
    rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    let written = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(dir)?;
        file.write_all(content.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

fn refused(error: &rcgen::Error) -> Failure {
    Failure::new(format!("the certificate cannot be made: {error}; --host takes names and addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_chassis::{Tls, TlsSettings};

    #[test]
    fn certificates_come_and_go_and_the_authority_stays() {
        let dir = tempfile::tempdir().unwrap();
        let args = DevCertArgs { dir: dir.path().join("tls"), hosts: vec!["till.local".to_owned()] };
        let read = |name: &str| std::fs::read(args.dir.join(name)).unwrap();
        run(&args).unwrap();
        let (authority, certificate) = (read("ca.pem"), read("cert.pem"));
        run(&args).unwrap();
        assert_eq!(read("ca.pem"), authority);
        assert_ne!(read("cert.pem"), certificate);
        for name in ["ca-key.pem", "key.pem"] {
            let mode = std::fs::metadata(args.dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let files = TlsSettings { tls_cert: Some(args.dir.join("cert.pem")), tls_key: Some(args.dir.join("key.pem")) };
        assert!(Tls::open(&files).unwrap().is_some());
        let wrong = DevCertArgs { dir: dir.path().join("tls"), hosts: vec!["no name\u{1F980}".to_owned()] };
        assert!(run(&wrong).unwrap_err().message.contains("--host"));
    }
}
