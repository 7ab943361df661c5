//! Translation of claim names through a service: names reserved by tokens, and the long forms that a service adds.
//!
//! A service forwards each claim of a client's token under its own name and under .NET's URI. The reverse translation
//! lets an app find its claim `role` only once.

use crate::wire::PRIVATE_CLAIM_PREFIX;

/// Prefix of app claims with a reserved name.
const APP_PREFIX: &str = "asrs.u.";

/// Claims that tokens use themselves, or that readers of tokens may act on.
const RESERVED: [&str; 11] = ["aud", "exp", "iat", "nbf", "iss", "actort", "acr", "azp", "c_hash", "jti", "nonce"];

/// Claim schemas, abbreviated for the table below.
const SOAP: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/";
const WINDOWS: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/";
const IDENTITY: &str = "http://schemas.microsoft.com/identity/claims/";
const CLAIMS: &str = "http://schemas.microsoft.com/claims/";
const ADFS: &str = "http://schemas.xmlsoap.org/claims/";

/// Short names, each with the schema and name of its URI. Source: the inbound claim types of System.IdentityModel.
const LONG_NAMES: [(&str, &str, &str); 37] = [
    ("acr", CLAIMS, "authnclassreference"),
    ("actort", "http://schemas.xmlsoap.org/ws/2009/09/identity/claims/", "actor"),
    ("adfs1email", ADFS, "EmailAddress"),
    ("adfs1upn", ADFS, "UPN"),
    ("amr", CLAIMS, "authnmethodsreferences"),
    ("authmethod", WINDOWS, "authenticationmethod"),
    ("birthdate", SOAP, "dateofbirth"),
    ("commonname", ADFS, "CommonName"),
    ("denyonlyprimarygroupsid", WINDOWS, "denyonlyprimarygroupsid"),
    ("denyonlyprimarysid", WINDOWS, "denyonlyprimarysid"),
    ("denyonlysid", SOAP, "denyonlysid"),
    ("denyonlywindowsdevicegroup", WINDOWS, "denyonlywindowsdevicegroup"),
    ("email", SOAP, "emailaddress"),
    ("family_name", SOAP, "surname"),
    ("gender", SOAP, "gender"),
    ("given_name", SOAP, "givenname"),
    ("group", ADFS, "Group"),
    ("groupsid", WINDOWS, "groupsid"),
    ("idp", IDENTITY, "identityprovider"),
    ("nameid", SOAP, "nameidentifier"),
    ("oid", IDENTITY, "objectidentifier"),
    ("ppid", SOAP, "privatepersonalidentifier"),
    ("primarygroupsid", WINDOWS, "primarygroupsid"),
    ("primarysid", WINDOWS, "primarysid"),
    ("role", WINDOWS, "role"),
    ("roles", WINDOWS, "role"),
    ("scp", IDENTITY, "scope"),
    ("sub", SOAP, "nameidentifier"),
    ("tid", IDENTITY, "tenantid"),
    ("unique_name", SOAP, "name"),
    ("upn", SOAP, "upn"),
    ("website", SOAP, "webpage"),
    ("winaccountname", WINDOWS, "windowsaccountname"),
    ("windowsdeviceclaim", WINDOWS, "windowsdeviceclaim"),
    ("windowsdevicegroup", WINDOWS, "windowsdevicegroup"),
    ("windowsfqbnversion", WINDOWS, "windowsfqbnversion"),
    ("windowssubauthority", WINDOWS, "windowssubauthority"),
];

/// Whether tokens reserve this claim name, so that an app's claim must be renamed.
#[must_use]
pub fn is_reserved_claim(name: &str) -> bool {
    RESERVED.contains(&name)
}

pub(super) fn token_claim(name: &str) -> String {
    if is_reserved_claim(name) { format!("{APP_PREFIX}{name}") } else { name.to_owned() }
}

/// App's name of a claim that a service forwarded. `None` for claims of the service and of the token itself.
#[must_use]
pub fn app_claim(name: &str) -> Option<&str> {
    if let Some(own) = name.strip_prefix(APP_PREFIX) {
        return Some(own);
    }
    if name.starts_with(PRIVATE_CLAIM_PREFIX) || is_reserved_claim(name) {
        return None;
    }
    let short = LONG_NAMES.iter().find(|(_, schema, long)| name.strip_prefix(schema) == Some(long));
    Some(short.map_or(name, |(short, ..)| short))
}

/// .NET's URI of a claim name. Depending on their options, app servers look up roles and names by URI or short name;
/// their SDK does not translate.
#[must_use]
pub fn long_claim(name: &str) -> Option<String> {
    let (_, schema, long) = LONG_NAMES.iter().find(|(short, ..)| *short == name)?;
    Some(format!("{schema}{long}"))
}

/// Claims with a long name, under that name. A service forwards them in addition to the originals.
pub fn long_claims<N: AsRef<str>, V: Clone>(claims: &[(N, V)]) -> impl Iterator<Item = (String, V)> {
    claims.iter().filter_map(|(name, value)| Some((long_claim(name.as_ref())?, value.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_round_trip() {
        for name in RESERVED {
            let sent = token_claim(name);
            assert!(sent.starts_with(APP_PREFIX));
            assert_eq!(app_claim(&sent), Some(name));
            assert_eq!(app_claim(name), None, "{name} is the token's own");
        }
        assert_eq!(app_claim("asrs.s.uid"), None);
    }

    #[test]
    fn expanded_names_are_short_again_and_others_stay() {
        let role = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";
        assert_eq!(app_claim(role), Some("role"));
        assert_eq!(app_claim("http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"), Some("nameid"));
        for name in ["role", "scope", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/hat", "x"] {
            assert_eq!(app_claim(name), Some(name));
        }
    }

    #[test]
    fn only_names_known_to_net_have_long_names() {
        let long = |name| long_claim(name).unwrap();
        assert_eq!(long("role"), "http://schemas.microsoft.com/ws/2008/06/identity/claims/role");
        assert_eq!(long("nameid"), long("sub"));
        assert_eq!(long("unique_name"), "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name");
        assert_eq!(["asrs.s.uid", "exp", "colour"].map(long_claim), [None, None, None]);
        assert!(LONG_NAMES.is_sorted_by_key(|(short, ..)| *short));
    }
}
