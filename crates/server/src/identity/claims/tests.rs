use super::*;
use serde_json::json;

const ISSUER: &str = "https://issuer.example";

fn caller(options: &ClaimOptions, claims: Value) -> Result<Caller, Refused> {
    options.caller(ISSUER, claims.as_object().unwrap(), &claims.to_string())
}

fn all() -> ClaimOptions {
    ClaimOptions {
        database: ClaimDatabase::All,
        ..ClaimOptions::default()
    }
}

#[test]
fn scopes() {
    let options = ClaimOptions {
        admin: vec!["db:admin".to_owned()],
        ..all()
    };
    let scope = |claims| caller(&options, claims).map(|caller| caller.scope);
    assert_eq!(scope(json!({"scope": "openid read"})), Ok(Scope::Read));
    assert_eq!(scope(json!({"scope": "read write"})), Ok(Scope::Write));
    assert_eq!(
        scope(json!({"scp": ["write", "db:admin"]})),
        Ok(Scope::Admin)
    );
    for nothing in [
        json!({}),
        json!({"scope": "admin reads"}),
        json!({"scope": 1}),
    ] {
        assert!(matches!(scope(nothing), Err(Refused::Insufficient(_))));
    }
    let options = ClaimOptions {
        scope: Some("rights".to_owned()),
        ..all()
    };
    assert!(caller(&options, json!({"scope": "read"})).is_err());
    assert!(caller(&options, json!({"rights": "read"})).is_ok());
}

#[test]
fn a_database_for_each_subject() {
    let reach = |subject: &str| {
        let claims = json!({"scope": "read", "sub": subject});
        caller(&ClaimOptions::default(), claims).unwrap().reach
    };
    let Reach::One(name) = reach("anna") else {
        panic!()
    };
    assert_eq!(name.as_str(), subject_database("user-", ISSUER, "anna"));
    assert_eq!(name.as_str().len(), 57);
    assert_ne!(reach("anna"), reach("Anna"));
    assert_ne!(
        subject_database("", "a", "bc"),
        subject_database("", "ab", "c")
    );
    // It never changes: users would lose their databases.
    assert_eq!(
        subject_database("user-", "https://issuer.example", "anna"),
        "user-atloms3ndzw2ev53733tdhbnyoqw2ydc43uov33xsokuofgkb4fa"
    );
    let nobody = json!({"scope": "read", "sub": ""});
    assert!(matches!(
        caller(&ClaimOptions::default(), nobody),
        Err(Refused::Invalid(_))
    ));
}

#[test]
fn base32_is_that_of_the_rfc() {
    let mut bytes = [0; 32];
    bytes[..6].copy_from_slice(b"foobar");
    assert!(base32(&bytes).starts_with("mzxw6ytboi"));
}

#[test]
fn a_claim_may_name_the_database() {
    let options = ClaimOptions {
        database: ClaimDatabase::Claim("db".to_owned()),
        ..ClaimOptions::default()
    };
    let good = caller(&options, json!({"scope": "read", "db": "shop"})).unwrap();
    assert_eq!(good.reach, Reach::One(DatabaseName::parse("shop").unwrap()));
    for bad in [
        json!({"scope": "read"}),
        json!({"scope": "read", "db": "a/b"}),
    ] {
        assert!(matches!(caller(&options, bad), Err(Refused::Invalid(_))));
    }
}

#[test]
fn only_listed_roles() {
    let options = ClaimOptions {
        role: Some("role".to_owned()),
        roles: vec!["app".to_owned()],
        ..all()
    };
    let role = |claims| caller(&options, claims).map(|caller| caller.role);
    assert_eq!(role(json!({"scope": "read"})), Ok(None));
    assert_eq!(
        role(json!({"scope": "read", "role": "app"})),
        Ok(Some("app".into()))
    );
    for other in [json!("postgres"), json!(1), json!(null)] {
        let refused = role(json!({"scope": "read", "role": other}));
        assert!(matches!(refused, Err(Refused::Insufficient(_))));
    }
    let open = ClaimOptions {
        role: Some("role".to_owned()),
        ..all()
    };
    assert!(open.check().is_err());
}

#[test]
fn whoever_is_called_the_same_is_not_the_same() {
    let identity = |claims: Value| {
        let mut token = json!({"scope": "read"});
        let more = claims.as_object().unwrap().clone();
        token.as_object_mut().unwrap().extend(more);
        caller(&all(), token).unwrap().identity
    };
    let long = "x".repeat(NAME_CHARACTERS_MAX);
    let different = [
        json!({"sub": "a\nb"}),
        json!({"sub": "a?b"}),
        json!({"sub": format!("{long}1")}),
        json!({"sub": format!("{long}2")}),
        json!({"client_id": "a?b"}),
        json!({"jti": "1"}),
        json!({"jti": "2"}),
    ];
    for (at, one) in different.iter().enumerate() {
        for other in &different[..at] {
            assert_ne!(
                identity(one.clone()),
                identity(other.clone()),
                "{one} {other}"
            );
        }
    }
    // A later token of the same.
    for (name, value) in [("sub", "anna"), ("client_id", "robot")] {
        let token = |jti: &str| identity(json!({name: value, "jti": jti}));
        assert_eq!(token("1"), token("2"));
    }
    let anna = json!({"scope": "read", "sub": "anna"});
    let other = all().caller("https://other.example", anna.as_object().unwrap(), "");
    assert_ne!(other.unwrap().identity, identity(json!({"sub": "anna"})));
}

#[test]
fn names_are_one_line() {
    let claims = json!({"scope": "read", "sub": "a\nb"});
    let caller = caller(&all(), claims).unwrap();
    assert_eq!(&*caller.name, "a?b of https://issuer.example");
    assert!(caller.claims.unwrap().contains("a\\nb"));
}

#[test]
fn prefixes() {
    let check = |prefix: &str| {
        let database = ClaimDatabase::Subject {
            prefix: prefix.to_owned(),
        };
        ClaimOptions { database, ..all() }.check()
    };
    assert!(check("").is_ok() && check("elevenbytes").is_ok());
    assert!(check("twelve-bytes").is_err() && check("-").is_err());
}
