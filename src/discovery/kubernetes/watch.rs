//! Follows one list: asks for it page by page, then for its changes from there on. When the server
//! has forgotten where that was, the list is asked for again.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::{DiscoveryError, answer, or_default};
use super::Pause;
use super::objects::{Kind, Object, Page};
use crate::http::{Client, explain};

/// How many objects a page has.
const PAGE: usize = 500;
/// The most objects of a list, and the most pages.
const OBJECTS_MAX: usize = 250_000;
const PAGES_MAX: usize = 10_000;
/// How long a page may take, and the beginning of the changes.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the server tells changes before it is asked anew. A connection that died is found out
/// after that.
const WATCH: Duration = Duration::from_mins(2);
/// How much longer that may take.
const GRACE: Duration = Duration::from_secs(15);
/// The longest change that is read, in bytes.
const LINE_MAX: usize = 16 << 20;
/// Changes that end sooner without a word are no success.
const SOON: Duration = Duration::from_secs(1);

/// A list that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// All namespaces when empty.
    pub(super) namespace: String,
    pub(super) label: String,
    pub(super) field: String,
}

/// What is told of a list.
#[derive(Debug)]
pub(super) enum News {
    /// Everything there is.
    Listed(Vec<Object>),
    /// What changed, in order.
    Changed(Vec<Change>),
    /// It could not be asked for; what was told still holds as far as anybody knows.
    Failed(DiscoveryError),
}

#[derive(Debug)]
pub(super) enum Change {
    /// It is new, or different.
    There(Object),
    Gone(Object),
}

/// The API server.
pub(super) struct Api {
    client: Client,
    url: Url,
    /// The same for messages: without a password and a final slash.
    place: String,
}

/// How changes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server has said all it wanted.
    Closed,
    /// The server no longer knows what changed.
    Forgotten,
}

/// Why an answer is none.
enum Failure {
    /// The server no longer knows that state.
    Forgotten,
    Other(DiscoveryError),
}

impl From<DiscoveryError> for Failure {
    fn from(error: DiscoveryError) -> Self {
        Self::Other(error)
    }
}

/// Tells `news` of `resource`, the list number `at`, for as long as somebody listens.
pub(super) async fn follow(
    api: &Api,
    resource: Resource,
    at: usize,
    news: mpsc::Sender<(usize, News)>,
) {
    let mut pause = Pause::default();
    loop {
        let mut version = match api.list(&resource).await {
            Ok((objects, version)) => {
                if news.send((at, News::Listed(objects))).await.is_err() {
                    return;
                }
                version
            }
            Err(error) => {
                if news.send((at, News::Failed(error))).await.is_err() {
                    return;
                }
                pause.wait().await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let mut heard = false;
            let mut changes = Changes { api, resource: &resource, at, news: &news };
            let ended = changes.follow(&mut version, &mut heard).await;
            if heard || (ended.is_ok() && began.elapsed() >= SOON) {
                pause.reset();
            } else {
                if let Err(error) = &ended
                    && news.send((at, News::Failed(error.clone()))).await.is_err()
                {
                    return;
                }
                pause.wait().await;
            }
            if matches!(ended, Ok(End::Forgotten)) {
                break;
            }
            if news.is_closed() {
                return;
            }
        }
    }
}

impl Api {
    pub(super) fn new(client: Client, url: &str) -> Result<Self, DiscoveryError> {
        let url = Url::parse(url)
            .map_err(|error| DiscoveryError(format!("the API server's address: {error}")))?;
        let mut place = url.clone();
        // A URL that cannot have a password has none.
        let _ = place.set_password(None);
        let place = place.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, url, place })
    }

    /// The whole list, and the state that it shows.
    async fn list(&self, resource: &Resource) -> Result<(Vec<Object>, String), DiscoveryError> {
        let mut objects: Vec<Object> = Vec::new();
        let mut next = String::new();
        let mut is_paged = true;
        for _ in 0..PAGES_MAX {
            let mut query = resource.query();
            if is_paged {
                query.push(("limit", PAGE.to_string()));
            }
            if !next.is_empty() {
                query.push(("continue", next.clone()));
            }
            let page = match self.page(resource, &query).await {
                Ok(page) => page,
                // The pages took longer than the server remembers: then at once.
                Err(Failure::Forgotten) if !next.is_empty() => {
                    (objects, next, is_paged) = (Vec::new(), String::new(), false);
                    continue;
                }
                Err(Failure::Forgotten) => {
                    let place = resource.place(self);
                    return Err(DiscoveryError(format!("{place} is gone")));
                }
                Err(Failure::Other(error)) => return Err(error),
            };
            objects.extend(page.objects);
            if objects.len() > OBJECTS_MAX {
                let place = resource.place(self);
                return Err(DiscoveryError(format!(
                    "{place} has more than {OBJECTS_MAX} objects; narrow it with `namespaces` or \
                     `selectors`"
                )));
            }
            if page.next.is_empty() {
                return Ok((objects, page.version));
            }
            next = page.next;
        }
        Err(DiscoveryError(format!("{} has no end", resource.place(self))))
    }

    async fn page(&self, resource: &Resource, query: &[(&str, String)]) -> Result<Page, Failure> {
        let place = resource.place(self);
        let request = self.request(resource, query, "PartialObjectMetadataList").await?;
        let answer = answer::get(request, &place, PATIENCE).await?;
        if answer.status == StatusCode::GONE {
            return Err(Failure::Forgotten);
        }
        answer.good(&place)?;
        let page = resource.kind.read_page(&answer.body);
        Ok(page.map_err(|error| unusable(&place, &error))?)
    }

    /// A request after `resource`; of bare ones only `bare` is asked for.
    async fn request(
        &self,
        resource: &Resource,
        query: &[(&str, String)],
        bare: &str,
    ) -> Result<RequestBuilder, DiscoveryError> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| DiscoveryError(format!("{} can have no path", self.place)))?
            .pop_if_empty()
            .extend(resource.path().split('/'));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.request(Method::GET, url.as_str()).await;
        let request = request.map_err(|error| DiscoveryError(error.to_string()))?;
        let accept = if resource.kind.is_bare() {
            format!("application/json;as={bare};g=meta.k8s.io;v=v1,application/json")
        } else {
            "application/json".to_owned()
        };
        Ok(request.header(ACCEPT, accept))
    }
}

impl Resource {
    /// The address of the list, for messages.
    fn place(&self, api: &Api) -> String {
        format!("{}/{}", api.place, self.path())
    }

    fn path(&self) -> String {
        let (group, name) = self.kind.path();
        if self.namespace.is_empty() {
            format!("{group}/{name}")
        } else {
            format!("{group}/namespaces/{}/{name}", self.namespace)
        }
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let pairs = [("labelSelector", &self.label), ("fieldSelector", &self.field)];
        let given = pairs.into_iter().filter(|(_, selector)| !selector.is_empty());
        given.map(|(key, selector)| (key, selector.clone())).collect()
    }
}

fn unusable(place: &str, error: &serde_json::Error) -> DiscoveryError {
    DiscoveryError(format!("the answer of {place} is not usable: {error}"))
}

/// The changes of one list.
struct Changes<'a> {
    api: &'a Api,
    resource: &'a Resource,
    at: usize,
    news: &'a mpsc::Sender<(usize, News)>,
}

impl Changes<'_> {
    /// Tells changes since `version`, which moves on with them, until the server ends it.
    async fn follow(
        &mut self,
        version: &mut String,
        heard: &mut bool,
    ) -> Result<End, DiscoveryError> {
        let place = self.resource.place(self.api);
        let late = || DiscoveryError(format!("the changes of {place} stopped without an end"));
        let until = Instant::now() + WATCH + GRACE;
        let begun = tokio::time::timeout(PATIENCE, self.begin(&place, version)).await;
        let read = match begun.map_err(|_| late())? {
            Ok(response) => self.read(response, until, &place, version, heard).await,
            Err(failure) => Err(failure),
        };
        match read {
            Ok(true) => Ok(End::Closed),
            Ok(false) => Err(late()),
            Err(Failure::Forgotten) => Ok(End::Forgotten),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    async fn begin(&self, place: &str, version: &str) -> Result<Response, Failure> {
        let mut query = self.resource.query();
        query.extend([
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", version.to_owned()),
            ("timeoutSeconds", WATCH.as_secs().to_string()),
        ]);
        let request = self.api.request(self.resource, &query, "PartialObjectMetadata").await?;
        let response = request.send().await.map_err(|error| asking(place, error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::GONE => Err(Failure::Forgotten),
            status => {
                let text = format!("{place} answered with HTTP status {status} to a watch");
                Err(Failure::Other(DiscoveryError(text)))
            }
        }
    }

    /// Reads line after line; tells whether that ended before `until`.
    async fn read(
        &self,
        mut response: Response,
        until: Instant,
        place: &str,
        version: &mut String,
        heard: &mut bool,
    ) -> Result<bool, Failure> {
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            // Only the server is waited for with an eye on the time: what it said is always told.
            let Ok(chunk) = tokio::time::timeout_at(until, response.chunk()).await else {
                return Ok(false);
            };
            let Some(chunk) = chunk.map_err(|error| asking(place, error))? else {
                return Ok(true);
            };
            let scanned = buffer.len();
            buffer.extend_from_slice(&chunk);
            let Some(end) = buffer[scanned..].iter().rposition(|byte| *byte == b'\n') else {
                if buffer.len() > LINE_MAX {
                    let text = format!("a change of {place} is longer than {} MiB", LINE_MAX >> 20);
                    return Err(Failure::Other(DiscoveryError(text)));
                }
                continue;
            };
            let mut changes = Vec::new();
            let lines = buffer[..scanned + end].split(|byte| *byte == b'\n');
            let mut outcome = Ok(());
            for line in lines.filter(|line| !line.trim_ascii().is_empty()) {
                match self.line(line, place, version) {
                    Ok(change) => changes.extend(change),
                    Err(failure) => {
                        outcome = Err(failure);
                        break;
                    }
                }
                *heard = true;
            }
            buffer.drain(..=scanned + end);
            if !changes.is_empty() {
                // Nobody listens at the very end.
                let _ = self.news.send((self.at, News::Changed(changes))).await;
            }
            outcome?;
        }
    }

    fn line(
        &self,
        line: &[u8],
        place: &str,
        version: &mut String,
    ) -> Result<Option<Change>, Failure> {
        #[derive(Deserialize)]
        struct Event {
            #[serde(rename = "type")]
            kind: String,
            object: Peek,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Peek {
            metadata: PeekMeta,
            code: Option<u16>,
            #[serde(deserialize_with = "or_default")]
            message: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct PeekMeta {
            #[serde(deserialize_with = "or_default")]
            resource_version: String,
        }
        let event: Event = serde_json::from_slice(line).map_err(|error| unusable(place, &error))?;
        let object = || {
            let object = self.resource.kind.read_change(line);
            object.map_err(|error| Failure::Other(unusable(place, &error)))
        };
        let change = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => Some(Change::There(object()?)),
            "DELETED" => Some(Change::Gone(object()?)),
            "BOOKMARK" => None,
            "ERROR" if event.object.code == Some(StatusCode::GONE.as_u16()) => {
                return Err(Failure::Forgotten);
            }
            _ => {
                let told: String = event.object.message.chars().take(300).collect();
                let text = format!("the changes of {place} ended with {}: {told}", event.kind);
                return Err(Failure::Other(DiscoveryError(text)));
            }
        };
        let now = event.object.metadata.resource_version;
        if !now.is_empty() {
            *version = now;
        }
        Ok(change)
    }
}

fn asking(place: &str, error: reqwest::Error) -> DiscoveryError {
    DiscoveryError(format!("asking {place}: {}", explain(&error.without_url())))
}
