/** The configuration of OpenStack Swift with its S3 interface, all in one on loopback. */
import type {Credentials} from './object-handle.ts';

export interface SwiftLayout {
  /** Folder of the configuration. */
  configDirectory: string;
  /** Folder of the stored objects; its file system needs extended attributes. */
  dataDirectory: string;
  /** Whom the servers run as: root needs to be told, everybody else can only be himself. */
  user: string;
  firstPort: number;
  /** The access key is ACCOUNT:USER. */
  credentials: Credentials;
}

/** In the order of the ports, from the first on. */
export const swiftPorts = ['proxy', 'object', 'container', 'account', 'memcached'] as const;

export type SwiftServer = 'object' | 'container' | 'account' | 'proxy';

/** The storage servers, each with a ring of one device. */
export const storageServers = ['object', 'container', 'account'] as const;

export function swiftPort(layout: SwiftLayout, name: (typeof swiftPorts)[number]): number {
  return layout.firstPort + swiftPorts.indexOf(name);
}

/** Swift refuses to run without a secret of its own in the hashes of paths. */
export function swiftConf(): string {
  return `[swift-hash]
swift_hash_path_prefix = loma
swift_hash_path_suffix = loma
[storage-policy:0]
name = gold
default = yes
[swift-constraints]
max_header_size = 16384
`;
}

/**
 * `location = auto`: Swift wants exactly its own region in every signature, and the product signs for the region `auto`,
 * as Cloudflare R2 has it.
 */
export function proxyServerConf(layout: SwiftLayout): string {
  const {accessKeyId, secretAccessKey} = layout.credentials;
  return `${serverDefaults(layout, 'proxy')}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
client_chunk_size = 1048576
object_chunk_size = 1048576
node_timeout = 60
conn_timeout = 5
recoverable_node_timeout = 30
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:${swiftPort(layout, 'memcached')}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = auto
s3_acl = false
allow_multipart_uploads = true
max_upload_part_num = 10000
max_parts_listing = 1000
multi_delete_concurrency = 8
auth_pipeline_check = true
check_bucket_owner = false
[filter:tempauth]
use = egg:swift#tempauth
user_${accessKeyId.replace(':', '_')} = ${secretAccessKey} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
max_manifest_size = 8388608
rate_limit_after_segment = 100000
concurrency = 4
delete_concurrency = 4
`;
}

export function storageServerConf(layout: SwiftLayout, name: (typeof storageServers)[number]): string {
  return `${serverDefaults(layout, name)}
devices = ${layout.dataDirectory}
mount_check = false
fallocate_reserve = 0
[pipeline:main]
pipeline = ${name}-server
[app:${name}-server]
use = egg:swift#${name}
disk_chunk_size = 1048576
network_chunk_size = 1048576
mb_per_sync = 512
`;
}

/** No workers: each server is one process. A taken port shows at once, not after the 30 s of the default. */
function serverDefaults(layout: SwiftLayout, name: SwiftServer): string {
  return `[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${swiftPort(layout, name)}
bind_timeout = 1
workers = 0
user = ${layout.user}
swift_dir = ${layout.configDirectory}
log_level = WARNING
log_address = /nonexistent`;
}

/** Python that makes the three rings, which say where things are stored: here always on the one device `d1`. */
export function ringScript(layout: SwiftLayout): string {
  const ports = storageServers.map((name) => `'${name}': ${swiftPort(layout, name)}`).join(', ');
  return `
import os, sys
from swift.common.ring import RingBuilder
probe = os.path.join(sys.argv[2], 'probe')
open(probe, 'w').close()
os.setxattr(probe, 'user.loma', b'1')
for name, port in {${ports}}.items():
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': port, 'device': 'd1', 'weight': 1.0,
                     'replication_ip': '127.0.0.1', 'replication_port': port})
    builder.rebalance(seed='loma')
    builder.get_ring().save(os.path.join(sys.argv[1], name + '.ring.gz'))
`;
}

/**
 * Python that runs one server: the command line programs are in another Debian package each. (One process that loads
 * Swift once and forks starts no sooner, and each fork leaves the process group, where no signal of ours reaches it.)
 */
export function serverScript({configDirectory}: SwiftLayout, name: SwiftServer): string {
  return `
import sys
from swift.common import utils
utils.set_swift_dir('${configDirectory}')
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi('${configDirectory}/${name}-server.conf', '${name}-server', verbose=True))
`;
}
