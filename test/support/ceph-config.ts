/** The configuration of a Ceph cluster of one monitor, one storage daemon and one S3 gateway on loopback. */

export interface CephLayout {
  directory: string;
  gatewayPort: number;
  monitorPort: number;
}

export const clusterId = '11111111-2222-3333-4444-555555555555';

/**
 * With cephx (the default) and its generated keys: without authentication the storage daemon sometimes died at its first
 * start with "wrong fsid". The store is a sparse file of 20 GiB, of which only what is written takes room.
 */
export function cephConf({directory, gatewayPort, monitorPort}: CephLayout): string {
  return `[global]
fsid = ${clusterId}
mon host = v1:127.0.0.1:${monitorPort}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
auth allow insecure global id reclaim = true
mon data = ${directory}/mon
osd data = ${directory}/osd
osd journal = ${directory}/osd/journal
run dir = ${directory}/run
admin socket = ${directory}/run/$name.asok
pid file =
log file = ${directory}/$name.ceph.log
crash dir = ${directory}/run
mon cluster log file = ${directory}/cluster.ceph.log
keyring = ${directory}/keyring
osd objectstore = bluestore
bluestore block size = 21474836480
bluestore fsck on mount = false
osd memory target = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.1
mon data avail crit = 1
mon data avail warn = 1
rgw data = ${directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:${gatewayPort} tcp_nodelay=1
rgw enable usage log = false
rgw run sync thread = false
rgw max chunk size = 4194304
rgw thread pool size = 32
rgw lc debug interval = -1
`;
}

/** Who may do what: entity, then its capabilities. */
export const keyring: Readonly<Record<string, readonly string[]>> = {
  'mon.': ['--cap', 'mon', 'allow *'],
  'client.admin': ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *', '--cap', 'mgr', 'allow *'],
  'osd.0': ['--cap', 'mon', 'allow profile osd', '--cap', 'osd', 'allow *'],
  'client.rgw': ['--cap', 'mon', 'allow rw', '--cap', 'osd', 'allow rwx'],
};
