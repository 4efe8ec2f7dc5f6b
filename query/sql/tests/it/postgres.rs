//! What PostgreSQL's clients ask when they look around: psql, drivers over JDBC, SQLAlchemy and the tools above them.

use bigpeer_sql::{Door, Language, Param, Params, Question};
use serde_json::{Value, json};

use crate::world::World;

async fn world() -> World {
    let mut world = World::new().await;
    world.put("flights", 1, json!({"carrier": "UA", "delay": 1.5, "tags": ["x"], "crew": {"pilot": "Ada"}})).await;
    world.put("Lost Luggage", "a", json!({"colour": "red"})).await;
    world
}

async fn ask(world: &World, text: &str) -> Value {
    let question = Question { language: Language::Postgres, ..Question::new(text, Door::Postgres) };
    world.answer(question).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "what psql asks is long")]
async fn psql_lists_tables_and_describes_them() {
    let world = world().await;
    let listed = ask(
        &world,
        r#"SELECT n.nspname as "Schema", c.relname as "Name",
  CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index'
    WHEN 'S' THEN 'sequence' WHEN 't' THEN 'TOAST table' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table'
    WHEN 'I' THEN 'partitioned index' END as "Type",
  pg_catalog.pg_get_userbyid(c.relowner) as "Owner"
FROM pg_catalog.pg_class c
     LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE c.relkind IN ('r','p','')
      AND n.nspname <> 'pg_catalog'
      AND n.nspname !~ '^pg_toast'
      AND n.nspname <> 'information_schema'
  AND pg_catalog.pg_table_is_visible(c.oid)
ORDER BY 1,2;"#,
    )
    .await;
    let row = |name: &str| json!({"Schema": "public", "Name": name, "Type": "table", "Owner": "bigpeer"});
    assert_eq!(listed, json!([row("Lost Luggage"), row("flights")]));

    let found = ask(
        &world,
        "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c
     LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname OPERATOR(pg_catalog.~) '^(flights)$' COLLATE pg_catalog.default
  AND pg_catalog.pg_table_is_visible(c.oid)
ORDER BY 2, 3;",
    )
    .await;
    assert_eq!(found[0]["relname"], "flights");
    let oid = found[0]["oid"].as_i64().unwrap();
    let about = ask(
        &world,
        &format!(
            "SELECT c.relchecks, c.relkind, c.relhasindex, c.relhasrules, c.relhastriggers, c.relrowsecurity, \
             c.relforcerowsecurity, false AS relhasoids, c.relispartition, '', c.reltablespace, \
             CASE WHEN c.reloftype = 0 THEN '' ELSE c.reloftype::pg_catalog.regtype::pg_catalog.text END, \
             c.relpersistence, c.relreplident, am.amname FROM pg_catalog.pg_class c \
             LEFT JOIN pg_catalog.pg_class tc ON (c.reltoastrelid = tc.oid) \
             LEFT JOIN pg_catalog.pg_am am ON (c.relam = am.oid) WHERE c.oid = '{oid}';"
        ),
    )
    .await;
    assert_eq!((&about[0]["relkind"], &about[0]["amname"]), (&json!("r"), &json!("heap")));
    let columns = ask(
        &world,
        &format!(
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
  (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d
   WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef),
  a.attnotnull,
  (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t
   WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND a.attcollation <> t.typcollation) AS attcollation,
  a.attidentity, a.attgenerated
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = '{oid}' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;"
        ),
    )
    .await;
    let columns: Vec<(String, String)> = columns
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let row: Vec<&Value> = row.as_object().unwrap().values().filter(|value| value.is_string()).collect();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let mut texts = row.into_iter().map(text).filter(|text| !text.is_empty());
            (texts.next().unwrap(), texts.next().unwrap())
        })
        .collect();
    for (name, kind) in [("_id", "bigint"), ("carrier", "text"), ("delay", "double precision"), ("tags", "text[]")] {
        assert!(
            columns.iter().any(|(a, b)| [a, b].contains(&&name.to_owned()) && [a, b].contains(&&kind.to_owned())),
            "{name} {kind}: {columns:?}"
        );
    }
}

#[tokio::test]
async fn what_an_app_does_not_have_is_empty() {
    let world = world().await;
    for text in [
        "SELECT pol.polname, pol.polpermissive,
  CASE WHEN pol.polroles = '{0}' THEN NULL ELSE pg_catalog.array_to_string(array(select rolname from pg_catalog.pg_roles \
         where oid = any (pol.polroles) order by 1),',') END,
  pg_catalog.pg_get_expr(pol.polqual, pol.polrelid)
FROM pg_catalog.pg_policy pol WHERE pol.polrelid = '16385' ORDER BY 1;",
        "SELECT oid, stxrelid::pg_catalog.regclass, stxnamespace::pg_catalog.regnamespace::pg_catalog.text AS nsp, stxname,
pg_catalog.pg_get_statisticsobjdef_columns(oid) AS columns, 'd' = any(stxkind) AS ndist_enabled, stxstattarget
FROM pg_catalog.pg_statistic_ext WHERE stxrelid = '16385' ORDER BY nsp, stxname;",
        "SELECT pubname, NULL, NULL FROM pg_catalog.pg_publication p
     JOIN pg_catalog.pg_publication_namespace pn ON p.oid = pn.pnpubid
     JOIN pg_catalog.pg_class pc ON pc.relnamespace = pn.pnnspid
WHERE pc.oid ='16385' and pg_catalog.pg_relation_is_publishable('16385')
UNION SELECT pubname, pg_get_expr(pr.prqual, c.oid), NULL FROM pg_catalog.pg_publication p
     JOIN pg_catalog.pg_publication_rel pr ON p.oid = pr.prpubid JOIN pg_catalog.pg_class c ON c.oid = pr.prrelid
WHERE pr.prrelid = '16385' ORDER BY 1;",
        "SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c, pg_catalog.pg_inherits i
WHERE c.oid = i.inhparent AND i.inhrelid = '16385' ORDER BY inhseqno;",
        "SELECT c.conname, pg_get_constraintdef(c.oid) FROM pg_catalog.pg_constraint c WHERE c.contype = 'f'",
        "SELECT tc.constraint_name FROM information_schema.table_constraints tc WHERE tc.table_schema = 'public'",
    ] {
        assert_eq!(ask(&world, text).await, json!([]), "{text}");
    }
}

#[tokio::test]
async fn drivers_over_jdbc_find_tables_and_columns() {
    let world = world().await;
    let tables = ask(
        &world,
        "SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME,
 CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema' WHEN true THEN 'SYSTEM TABLE' WHEN false THEN
   CASE c.relkind WHEN 'r' THEN 'TABLE' ELSE NULL END ELSE NULL END AS TABLE_TYPE, d.description AS REMARKS
FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c
 LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass)
WHERE c.relnamespace = n.oid AND n.nspname LIKE 'public' AND c.relkind IN ('r', 'p') ORDER BY TABLE_TYPE, TABLE_NAME",
    )
    .await;
    assert_eq!(tables.as_array().unwrap().len(), 2, "{tables}");
    assert_eq!(tables[1]["TABLE_TYPE"], "TABLE");
    let columns = ask(
        &world,
        "SELECT * FROM (SELECT current_database() AS current_database, n.nspname, c.relname, a.attname, a.atttypid,
 a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS attnotnull, a.atttypmod, a.attlen, t.typtypmod,
 row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS attnum, nullif(a.attidentity, '') AS attidentity,
 nullif(a.attgenerated, '') AS attgenerated, pg_catalog.pg_get_expr(def.adbin, def.adrelid) AS adsrc, dsc.description,
 t.typbasetype, t.typtype
FROM pg_catalog.pg_namespace n
 JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid) JOIN pg_catalog.pg_attribute a ON (a.attrelid = c.oid)
 JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid)
 LEFT JOIN pg_catalog.pg_attrdef def ON (a.attrelid = def.adrelid AND a.attnum = def.adnum)
 LEFT JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid)
 LEFT JOIN pg_catalog.pg_class dc ON (dc.oid = dsc.classoid AND dc.relname = 'pg_class')
 LEFT JOIN pg_catalog.pg_namespace dn ON (dc.relnamespace = dn.oid AND dn.nspname = 'pg_catalog')
WHERE c.relkind in ('r','p','v','f','m') and a.attnum > 0 AND NOT a.attisdropped AND n.nspname LIKE 'public'
 AND c.relname LIKE 'flights') c WHERE true ORDER BY nspname, c.relname, attnum",
    )
    .await;
    let names: Vec<_> = columns.as_array().unwrap().iter().map(|row| row["attname"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"_id"));
    assert!(names.contains(&"carrier") && names.contains(&"_transaction"), "{names:?}");
    assert_eq!(columns[0]["current_database"], world.app.as_str());
}

#[tokio::test]
async fn names_and_functions_are_those_of_postgresql() {
    let world = world().await;
    let one = async |text: &str| {
        let rows = ask(&world, &format!("SELECT {text} AS r")).await;
        rows[0]["r"].clone()
    };
    assert_eq!(one("current_database()").await, world.app.as_str());
    assert_eq!(one("current_schema").await, "public");
    assert!(one("pg_catalog.version()").await.as_str().unwrap().starts_with("PostgreSQL 16"));
    assert_eq!(one("'public' = ANY (current_schemas(false))").await, true);
    assert_eq!(one("pg_catalog.format_type(23, -1)").await, "integer");
    assert_eq!(one("(SELECT typname FROM pg_type WHERE oid = to_regtype('int4'))").await, "int4");
    assert_eq!(one("to_regtype('hstore')").await, Value::Null);
    assert_eq!(one("'pg_x' LIKE 'pg/_' || '%' ESCAPE '/'").await, true);
    assert_eq!(one("'pgax' LIKE 'pg/_' || '%' ESCAPE '/'").await, false);
    assert_eq!(one("has_table_privilege('flights', 'INSERT')").await, false);
    assert_eq!(one("(SELECT count(*) FROM pg_class WHERE oid = 'flights'::regclass)").await, 1);
    assert_eq!(one("(SELECT count(*) FROM public.flights)").await, 1);
    assert_eq!(one(&format!("(SELECT count(*) FROM \"{}\".public.flights)", world.app)).await, 1);
    assert_eq!(one("(SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public')").await, 2);
}

#[tokio::test]
async fn parameters_without_types_take_those_of_the_query() {
    let world = world().await;
    let ask = async |text: &str, params: Vec<Param>| {
        let (language, params) = (Language::Postgres, Params::positional(params));
        let question = Question { language, params, ..Question::new(text, Door::Postgres) };
        world.answer(question).await
    };
    let text = |text: &str| Param::Untyped(text.to_owned());
    let by_id = "SELECT carrier FROM flights WHERE _id = $1 AND delay > $2 AND carrier = $3";
    let rows = ask(by_id, vec![text("1"), text("0.5"), text("UA")]).await.unwrap();
    assert_eq!(rows, json!([{"carrier": "UA"}]));
    let error = ask(by_id, vec![text("one"), text("0.5"), text("UA")]).await.unwrap_err();
    assert!(error.message.contains("parameter $1"), "{error}");
    let user = world.context.user(world.app.as_str(), &world.key).unwrap();
    let question = Question { language: Language::Postgres, ..Question::new(by_id, Door::Postgres) };
    let described = world.context.describe(&user, question).await.unwrap();
    let of_table = "SELECT relname FROM pg_class WHERE oid = $1::regclass";
    for name in ["flights", "public.flights"] {
        assert_eq!(ask(of_table, vec![text(name)]).await.unwrap(), json!([{"relname": "flights"}]), "{name}");
    }
    let types: Vec<String> =
        described.parameters.iter().map(|(name, kind)| format!("{name} {}", kind.as_ref().unwrap())).collect();
    assert_eq!(types, ["$1 Int64", "$2 Float64", "$3 Utf8View"]);
}

#[tokio::test]
async fn other_apps_and_writing_are_refused_here_too() {
    let world = world().await;
    let (other, _) = world.another_app(&["secrets"]).await;
    for text in [
        format!("SELECT * FROM \"{other}\".public.secrets"),
        "SELECT * FROM secrets".to_owned(),
        "SELECT * FROM public.secrets".to_owned(),
        "DROP TABLE flights".to_owned(),
        "COPY flights TO STDOUT".to_owned(),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
        "SELECT * FROM pg_ls_dir('/')".to_owned(),
    ] {
        let question = Question { language: Language::Postgres, ..Question::new(text.clone(), Door::Postgres) };
        let error = world.answer(question).await.unwrap_err();
        assert_eq!(error.code.status(), 400, "{text}: {error}");
    }
    let databases = ask(&world, "SELECT datname FROM pg_database").await;
    assert_eq!(databases, json!([{"datname": world.app.as_str()}]));
}
