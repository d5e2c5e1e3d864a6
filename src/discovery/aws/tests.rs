//! Machines, tasks and keys from a fake AWS on the loopback, with data of our own.

use std::collections::HashMap;

use super::super::refresh::Discoverer as _;
use super::super::testing::{Reply, Request, RuntimeClock, Server, shown_found};
use super::*;
use crate::config::SdConfig;
use crate::config::tests_support::sd_config;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let pairs: HashMap<String, String> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arc::new(move |name| pairs.get(name).cloned())
}

fn with_keys() -> Environment {
    environment(&[("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "SK")])
}

fn ec2(server: &Server, keys: &str, environment: Environment) -> Ec2 {
    let keys = format!(
        "ec2_sd_configs: [{{region: xx-north-1, endpoint: '{}', port: 9100{keys}}}]",
        server.url()
    );
    let SdConfig::Ec2(config) = sd_config(&keys) else { panic!("ec2 is expected") };
    Ec2::new(&config, RuntimeClock::started(), environment).unwrap()
}

fn field(request: &Request, name: &str) -> String {
    let url = Url::parse(&format!("http://x/?{}", request.body)).unwrap();
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn xml(body: &str) -> Reply {
    Reply::typed("text/xml", body)
}

const ZONES: &str = "<R><availabilityZoneInfo>
<item><zoneName>xx-north-1a</zoneName><zoneId>xxn1-az3</zoneId></item></availabilityZoneInfo></R>";

const FIRST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet><item>
<ownerId>123456789012</ownerId><instancesSet><item>
 <instanceId>i-1</instanceId><imageId>ami-1</imageId><instanceState><code>16</code><name>running</name></instanceState>
 <privateDnsName>ip-10-0-0-1.internal</privateDnsName><dnsName>one.example</dnsName>
 <instanceType>t4g.small</instanceType><placement><availabilityZone>xx-north-1a</availabilityZone></placement>
 <privateIpAddress>10.0.0.1</privateIpAddress><ipAddress>192.0.2.1</ipAddress>
 <architecture>arm64</architecture><instanceLifecycle>spot</instanceLifecycle><platform>windows</platform>
 <vpcId>vpc-1</vpcId><subnetId>subnet-a</subnetId>
 <tagSet><item><key>Name</key><value>web &amp; more</value></item><item><key>team:x</key><value>a</value></item></tagSet>
 <networkInterfaceSet>
  <item><subnetId>subnet-b</subnetId><attachment><deviceIndex>1</deviceIndex></attachment>
   <ipv6AddressesSet><item><ipv6Address>fd00::1</ipv6Address><isPrimaryIpv6>false</isPrimaryIpv6></item>
   <item><ipv6Address>fd00::2</ipv6Address><isPrimaryIpv6>true</isPrimaryIpv6></item></ipv6AddressesSet></item>
  <item><subnetId>subnet-a</subnetId><attachment><deviceIndex>0</deviceIndex></attachment></item>
  <item><subnetId>subnet-b</subnetId></item>
 </networkInterfaceSet>
</item></instancesSet></item></reservationSet><nextToken>more=</nextToken></DescribeInstancesResponse>"#;

const SECOND: &str = "<R><reservationSet><item><instancesSet>
<item><instanceId>i-2</instanceId><imageId>ami-2</imageId><privateIpAddress>10.0.0.2</privateIpAddress>
 <instanceState><name>stopped</name></instanceState><placement><availabilityZone>xx-north-1b</availabilityZone></placement>
 <instanceType>m5.large</instanceType></item>
<item><instanceId>i-3</instanceId></item>
</instancesSet></item></reservationSet></R>";

async fn region() -> Server {
    Server::start(|request| match (&*field(request, "Action"), &*field(request, "NextToken")) {
        ("DescribeAvailabilityZones", _) => xml(ZONES),
        ("DescribeInstances", "") => xml(FIRST),
        ("DescribeInstances", "more=") => xml(SECOND),
        _ => Reply::status(404),
    })
    .await
}

#[tokio::test]
async fn machines_are_listed_page_after_page() {
    let server = region().await;
    let filters = ", filters: [{name: 'tag:a', values: [x, 'y z']}]";
    let mut ec2 = ec2(&server, filters, with_keys());
    let found = ec2.refresh().await.unwrap();
    insta::assert_snapshot!("machines", shown_found(&found));
    let requests = server.requests.lock().clone();
    let asked = &requests[1];
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/"));
    assert_eq!(field(asked, "Version"), "2016-11-15");
    assert_eq!(field(asked, "Filter.1.Name"), "tag:a");
    assert_eq!(field(asked, "Filter.1.Value.2"), "y z");
    let signature = &asked.headers["authorization"];
    let expected = "AWS4-HMAC-SHA256 Credential=AK/20231114/xx-north-1/ec2/aws4_request, \
                    SignedHeaders=content-type;host;x-amz-date, Signature=";
    assert!(signature.starts_with(expected), "{signature}");
    ec2.refresh().await.unwrap();
    let zones = |request: &&Request| field(request, "Action") == "DescribeAvailabilityZones";
    assert_eq!(server.requests.lock().iter().filter(zones).count(), 1, "zones are asked for once");
}

#[tokio::test]
async fn zones_may_be_forbidden_and_machines_not() {
    let no = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>";
    let refuse = Reply::Whole(403, vec![], no.as_bytes().to_vec());
    let also = refuse.clone();
    let server = Server::start(move |request| match &*field(request, "Action") {
        "DescribeInstances" => xml(SECOND),
        _ => refuse.clone(),
    })
    .await;
    let found = ec2(&server, "", with_keys()).refresh().await.unwrap();
    assert_eq!(found.groups[0].targets.len(), 1);
    let server = Server::start(move |_| also.clone()).await;
    let error = ec2(&server, "", with_keys()).refresh().await.unwrap_err().to_string();
    assert_eq!(error, "DescribeInstances: UnauthorizedOperation: no");
    for (reply, text) in [
        (xml("<R>"), "not usable XML"),
        (Reply::status(500), "HTTP status 500"),
        (Reply::Half("<R>".to_owned()), "error decoding"),
        (xml("<R><nextToken>again</nextToken></R>"), "more than 1000 pages"),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = ec2(&server, "", with_keys()).refresh().await.unwrap_err().to_string();
        assert!(error.contains(text), "{text} in {error}");
    }
}

const CREDENTIALS: &str = r#"{"AccessKeyId": "ROLE", "SecretAccessKey": "S", "Token": "T",
    "Expiration": "2023-11-14T23:13:20Z"}"#;

/// Machine, container, token service and EC2 in one.
async fn cloud() -> Server {
    Server::start(|request| match (&*request.method, &*request.target) {
        ("PUT", "/latest/api/token") => Reply::typed("text/plain", "session"),
        ("GET", path) => {
            let session = request.headers.get("x-aws-ec2-metadata-token");
            match (path, session.map(String::as_str)) {
                ("/latest/meta-data/placement/region", Some("session")) => {
                    Reply::typed("text/plain", "xx-south-2\n")
                }
                ("/latest/meta-data/iam/security-credentials/", Some("session")) => {
                    Reply::typed("text/plain", "role-of-machine")
                }
                ("/latest/meta-data/iam/security-credentials/role-of-machine", Some("session")) => {
                    Reply::json(CREDENTIALS)
                }
                ("/task", _) if request.headers.get("authorization").is_some_and(|a| a == "tok") => {
                    Reply::json(CREDENTIALS.replace("ROLE", "TASK"))
                }
                _ => Reply::status(401),
            }
        }
        ("POST", _) => match &*field(request, "Action") {
            "AssumeRole" | "AssumeRoleWithWebIdentity" => {
                let action = field(request, "Action");
                xml(&format!(
                    "<R><{action}Result><Credentials><AccessKeyId>STS</AccessKeyId>\
                     <SecretAccessKey>S2</SecretAccessKey><SessionToken>T2</SessionToken>\
                     <Expiration>2023-11-14T23:13:20Z</Expiration></Credentials></{action}Result></R>"
                ))
            }
            "DescribeInstances" => xml(SECOND),
            _ => Reply::status(403),
        },
        _ => Reply::status(405),
    })
    .await
}

/// The access key and region that machines were asked for with, and the session token.
fn signed(server: &Server) -> (String, String) {
    let requests = server.requests.lock();
    let asked = requests.iter().find(|request| field(request, "Action") == "DescribeInstances");
    let asked = asked.expect("machines were asked for");
    let scope = asked.headers["authorization"].split("Credential=").nth(1).unwrap();
    let scope = scope.split(", ").next().unwrap().to_owned();
    (scope, asked.headers.get("x-amz-security-token").cloned().unwrap_or_default())
}

#[tokio::test]
async fn keys_come_from_where_they_are_first_found() {
    let folder = std::env::temp_dir().join(format!("stint-aws-{}", std::process::id()));
    std::fs::create_dir_all(folder.join(".aws")).unwrap();
    let file = "[default]\naws_access_key_id = DEF\naws_secret_access_key=s\n\
                [other]\n# no\naws_access_key_id=OTH\naws_secret_access_key = s\naws_session_token = st\n";
    std::fs::write(folder.join(".aws/credentials"), file).unwrap();
    std::fs::write(folder.join("identity"), "jwt\n").unwrap();
    let home = folder.display().to_string();
    let identity = format!("{home}/identity");
    let own = ("AWS_ACCESS_KEY_ID", "ENV");
    let secret = ("AWS_SECRET_ACCESS_KEY", "s");
    let token = ("AWS_SESSION_TOKEN", "envt");
    let named = ("AWS_WEB_IDENTITY_TOKEN_FILE", &*identity);
    let role = ("AWS_ROLE_ARN", "arn:r");
    for (keys, variables, expected) in [
        (", access_key: CFG, secret_key: s", vec![own, secret], ("CFG", "")),
        ("", vec![own, secret, token, ("HOME", &*home)], ("ENV", "envt")),
        (", profile: other", vec![own, secret, ("HOME", &*home)], ("OTH", "st")),
        ("", vec![("HOME", &*home), ("AWS_PROFILE", "other")], ("OTH", "st")),
        ("", vec![("HOME", &*home)], ("DEF", "")),
        ("", vec![named, role], ("STS", "T2")),
        ("", vec![("AWS_CONTAINER_AUTHORIZATION_TOKEN", "tok")], ("TASK", "T")),
        ("", vec![], ("ROLE", "T")),
        (
            ", access_key: CFG, secret_key: s, role_arn: 'arn:x', external_id: e",
            vec![],
            ("STS", "T2"),
        ),
    ] {
        let server = cloud().await;
        let (base, task) = (server.url(), format!("{}/task", server.url()));
        let mut all = variables.clone();
        all.push(("AWS_ENDPOINT_URL_STS", &base));
        all.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT", &base));
        if all.iter().any(|(name, _)| name.starts_with("AWS_CONTAINER")) {
            all.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", &task));
        }
        let mut ec2 = ec2(&server, keys, environment(&all));
        ec2.refresh().await.unwrap_or_else(|error| panic!("{keys} {variables:?}: {error}"));
        let (scope, token) = signed(&server);
        assert_eq!((scope.split('/').next().unwrap(), &*token), expected, "{keys} {variables:?}");
        let before = server.requests.lock().len();
        ec2.refresh().await.unwrap();
        let asked = server.requests.lock().len() - before;
        assert_eq!(asked, 2, "zones, which stay forbidden, and machines: {keys} {variables:?}");
        for request in &*server.requests.lock() {
            match &*field(request, "Action") {
                "AssumeRole" => {
                    assert_eq!(field(request, "RoleArn"), "arn:x");
                    assert_eq!(field(request, "ExternalId"), "e");
                    assert!(request.headers["authorization"].contains("/sts/aws4_request"));
                }
                "AssumeRoleWithWebIdentity" => {
                    assert_eq!(field(request, "WebIdentityToken"), "jwt");
                    assert!(!request.headers.contains_key("authorization"));
                }
                _ => {}
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn without_a_region_or_keys_it_is_told_what_to_set() {
    let server = cloud().await;
    let base = server.url();
    let machine = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*base);
    let off = ("AWS_EC2_METADATA_DISABLED", "true");
    let make = |keys: &str, variables: &[(&str, &str)]| {
        let keys = format!("ec2_sd_configs: [{{endpoint: '{base}'{keys}}}]");
        let SdConfig::Ec2(config) = sd_config(&keys) else { panic!("ec2 is expected") };
        Ec2::new(&config, RuntimeClock::started(), environment(variables)).unwrap()
    };
    make("", &[machine]).refresh().await.unwrap();
    assert_eq!(signed(&server).0, "ROLE/20231114/xx-south-2/ec2/aws4_request");
    let error = make("", &[off]).refresh().await.unwrap_err().to_string();
    assert!(error.contains("set `region` or AWS_REGION"), "{error}");
    let error = make("", &[off, ("AWS_REGION", "r")]).refresh().await.unwrap_err().to_string();
    assert!(error.contains("no credentials: set access_key"), "{error}");
    let error = make(", region: r, profile: p", &[off]).refresh().await.unwrap_err().to_string();
    assert!(error.contains("the profile \"p\""), "{error}");
}

fn question(request: &Request) -> Json {
    serde_json::from_str(&request.body).unwrap_or_default()
}

/// Two clusters, of which the second one cannot be asked for its tasks.
fn ecs_answer(request: &Request) -> Reply {
    let question = question(request);
    let Some(action) = request.headers.get("x-amz-target") else {
        return match &*field(request, "Action") {
            "DescribeInstances" if field(request, "InstanceId.1") == "i-1" => xml(FIRST_HOST),
            "DescribeNetworkInterfaces" if field(request, "NetworkInterfaceId.1") == "eni-1" => {
                xml("<R><networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId>\
                     <association><publicIp>192.0.2.9</publicIp></association></item></networkInterfaceSet></R>")
            }
            _ => Reply::status(404),
        };
    };
    let action = action.strip_prefix("AmazonEC2ContainerServiceV20141113.").unwrap();
    let second = question["cluster"] == "arn:c2";
    Reply::json(match action {
        "ListClusters" if question["nextToken"] == "n" => r#"{"clusterArns": ["arn:c2"]}"#,
        "ListClusters" => r#"{"clusterArns": ["arn:c1"], "nextToken": "n"}"#,
        "DescribeClusters" => {
            r#"{"clusters": [{"clusterArn": "arn:c1", "clusterName": "one", "tags": [{"key": "e.n", "value": "prod"}]},
                {"clusterArn": "arn:c2", "clusterName": "two", "tags": null}]}"#
        }
        _ if second => return Reply::Whole(400, vec![], br#"{"__type": "AccessDenied"}"#.to_vec()),
        "ListServices" => r#"{"serviceArns": ["arn:s1"]}"#,
        "DescribeServices" => {
            r#"{"services": [{"serviceArn": "arn:s1", "serviceName": "web", "status": "ACTIVE",
                "tags": [{"key": "team", "value": "a"}]}]}"#
        }
        "ListTasks" => r#"{"taskArns": ["arn:t1", "arn:t2", "arn:t3"]}"#,
        "DescribeContainerInstances" => {
            r#"{"containerInstances": [{"containerInstanceArn": "arn:ci", "ec2InstanceId": "i-1"}]}"#
        }
        "DescribeTasks" => TASKS,
        _ => return Reply::status(404),
    })
}

const FIRST_HOST: &str = "<R><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId>
<instanceType>m5.large</instanceType><privateIpAddress>10.0.0.1</privateIpAddress><ipAddress>192.0.2.1</ipAddress>
<subnetId>subnet-h</subnetId><tagSet><item><key>Name</key><value>host</value></item></tagSet>
</item></instancesSet></item></reservationSet></R>";

const TASKS: &str = r#"{"tasks": [
 {"taskArn": "arn:t1", "group": "service:web", "taskDefinitionArn": "arn:d:1", "launchType": "FARGATE",
  "availabilityZone": "xx-north-1a", "desiredStatus": "RUNNING", "lastStatus": "RUNNING", "healthStatus": "HEALTHY",
  "platformFamily": "Linux", "platformVersion": "1.4.0", "tags": [{"key": "k", "value": "v"}],
  "attachments": [{"type": "ElasticNetworkInterface", "details": [
    {"name": "subnetId", "value": "subnet-1"}, {"name": "networkInterfaceId", "value": "eni-1"},
    {"name": "privateIPv4Address", "value": "10.1.0.5"}]}]},
 {"taskArn": "arn:t2", "group": "family:batch", "taskDefinitionArn": "arn:d:2", "launchType": "EC2",
  "availabilityZone": "xx-north-1a", "desiredStatus": "RUNNING", "lastStatus": "RUNNING", "healthStatus": "UNKNOWN",
  "containerInstanceArn": "arn:ci", "attachments": []},
 {"taskArn": "arn:t3", "group": "service:web", "launchType": "FARGATE", "lastStatus": "PROVISIONING",
  "attachments": [{"type": "ElasticNetworkInterface", "details": [{"name": "subnetId", "value": "subnet-1"}]}]}
]}"#;

fn ecs(server: &Server, keys: &str) -> Ecs {
    let keys = format!(
        "aws_sd_configs: [{{role: ecs, region: xx-north-1, endpoint: '{}', port: 8080{keys}}}]",
        server.url()
    );
    let SdConfig::Ecs(config) = sd_config(&keys) else { panic!("ecs is expected") };
    Ecs::new(&config, RuntimeClock::started(), with_keys()).unwrap()
}

#[tokio::test]
async fn tasks_are_listed_by_cluster_and_a_forbidden_cluster_keeps_its_own() {
    let server = Server::start(ecs_answer).await;
    let found = ecs(&server, "").refresh().await.unwrap();
    insta::assert_snapshot!("tasks", shown_found(&found));
    let [(source, error)] = &found.unknown[..] else { panic!("{:?}", found.unknown) };
    assert_eq!(source, "arn:c2");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    let requests = server.requests.lock().clone();
    let tasks = requests.iter().find(|request| {
        request.headers.get("x-amz-target").is_some_and(|target| target.ends_with(".DescribeTasks"))
    });
    let tasks = tasks.unwrap();
    assert_eq!(question(tasks)["tasks"].as_array().unwrap().len(), 3);
    assert_eq!(question(tasks)["include"][0], "TAGS");
    assert_eq!(tasks.headers["content-type"], "application/x-amz-json-1.1");
    assert!(tasks.headers["authorization"].contains("/xx-north-1/ecs/aws4_request"));
}

#[tokio::test]
async fn clusters_that_are_named_are_not_listed() {
    let server = Server::start(ecs_answer).await;
    ecs(&server, ", clusters: [one], request_concurrency: 1").refresh().await.unwrap();
    let requests = server.requests.lock().clone();
    let described = &requests[0];
    assert!(described.headers["x-amz-target"].ends_with(".DescribeClusters"));
    assert_eq!(question(described)["clusters"][0], "one");
    let server = Server::start(|_| Reply::json("{}")).await;
    assert_eq!(ecs(&server, "").refresh().await.unwrap(), super::super::refresh::Found::default());
}
