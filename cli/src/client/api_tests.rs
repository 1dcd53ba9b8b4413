use super::*;

#[test]
fn a_list_continues_at_its_link() {
    let at = "https://api.test/prod/runs/1/gates?limit=9";
    let next = |link: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, link.parse().unwrap());
        next_page(at, &headers).unwrap()
    };
    let expected = "https://api.test/prod/runs/1/gates?after=x&limit=9";
    assert_eq!(next("<?after=x&limit=9>; rel=\"next\"").as_deref(), Some(expected));
    assert_eq!(next("<?before=x>; rel=\"prev\""), None);
    assert_eq!(next_page(at, &HeaderMap::new()).unwrap(), None);
    let elsewhere = [(LINK, "<https://evil.test/>; rel=\"next\"".parse().unwrap())];
    assert!(next_page(at, &elsewhere.into_iter().collect()).is_err());
}
