/** Ceph's RADOS gateway from Debian's packages: the second opinion, with conditional writes. */
import {randomBytes, randomUUID} from 'node:crypto';
import {mkdir, writeFile} from 'node:fs/promises';
import {execa} from 'execa';
import {type CephLayout, cephConf, clusterId, keyring} from './ceph-config.ts';
import {freePorts} from './free-ports.ts';
import type {Credentials} from './object-handle.ts';
import type {RunnableObjectServer} from './object-server.ts';
import {answers} from './probe.ts';
import type {ServerDirectory} from './server-directory.ts';
import type {ServerProcess} from './server-process.ts';
import {waitUntil} from './wait-until.ts';

export async function prepareCeph(directory: ServerDirectory): Promise<RunnableObjectServer> {
  const gatewayPort = await freePorts(2);
  const layout: CephLayout = {directory: directory.path, gatewayPort, monitorPort: gatewayPort + 1};
  const credentials: Credentials = {
    accessKeyId: `loma${randomBytes(6).toString('hex')}`,
    secretAccessKey: randomBytes(20).toString('hex'),
  };
  await Promise.all(['mon', 'osd', 'run', 'rgw'].map((name) => mkdir(directory.file(name))));
  await writeFile(directory.file('ceph.conf'), cephConf(layout));
  const cluster = new Cluster(directory, `http://127.0.0.1:${gatewayPort}`);
  let isNew = true;
  return {
    facts: {kind: 'ceph', endpoint: cluster.endpoint, region: 'auto', ...credentials},
    async run() {
      await (isNew ? cluster.create(layout, credentials) : cluster.start());
      isNew = false;
    },
  };
}

class Cluster {
  readonly endpoint: string;
  readonly #directory: ServerDirectory;
  readonly #conf: string[];

  constructor(directory: ServerDirectory, endpoint: string) {
    this.endpoint = endpoint;
    this.#directory = directory;
    this.#conf = ['-c', directory.file('ceph.conf')];
  }

  /** The storage daemon's data can only be made when the monitor runs and has given it a number. */
  async create(layout: CephLayout, credentials: Credentials): Promise<void> {
    await this.#makeKeyring();
    await this.#makeMonitor(layout);
    const monitor = this.#startMonitor();
    const storageId = randomUUID();
    await this.#tool('ceph', [...this.#conf, '--connect-timeout', '15', 'osd', 'new', storageId]);
    await this.#tool('ceph-osd', [...this.#conf, '-i', '0', '--mkfs', '--osd-uuid', storageId]);
    await this.#untilAnswering([monitor, this.#startStorage(), this.#startGateway()]);
    const {accessKeyId, secretAccessKey} = credentials;
    const keys = ['--access-key', accessKeyId, '--secret', secretAccessKey];
    await this.#tool('radosgw-admin', [
      ...this.#conf,
      'user',
      'create',
      '--uid',
      'loma',
      '--display-name',
      'loma',
      ...keys,
    ]);
  }

  async start(): Promise<void> {
    await this.#untilAnswering([this.#startMonitor(), this.#startStorage(), this.#startGateway()]);
  }

  async #makeKeyring(): Promise<void> {
    const file = this.#directory.file('keyring');
    const create = ['--create-keyring'];
    for (const [entity, capabilities] of Object.entries(keyring)) {
      await this.#tool('ceph-authtool', [file, ...create.splice(0), '--gen-key', '-n', entity, ...capabilities]);
    }
  }

  async #makeMonitor({monitorPort}: CephLayout): Promise<void> {
    const map = this.#directory.file('monmap');
    const address = `v1:127.0.0.1:${monitorPort}`;
    await this.#tool('monmaptool', ['--create', '--clobber', '--addv', 'a', address, '--fsid', clusterId, map]);
    const files = ['--monmap', map, '--keyring', this.#directory.file('keyring')];
    await this.#tool('ceph-mon', [...this.#conf, '-i', 'a', '--mkfs', ...files]);
  }

  #startMonitor(): ServerProcess {
    return this.#directory.start({name: 'mon', file: 'ceph-mon', args: [...this.#conf, '-i', 'a', '-f']});
  }

  #startStorage(): ServerProcess {
    return this.#directory.start({name: 'osd', file: 'ceph-osd', args: [...this.#conf, '-i', '0', '-f']});
  }

  #startGateway(): ServerProcess {
    return this.#directory.start({name: 'rgw', file: 'radosgw', args: [...this.#conf, '-n', 'client.rgw', '-f']});
  }

  async #untilAnswering(daemons: ServerProcess[]): Promise<void> {
    await waitUntil(
      async () => {
        const dead = daemons.filter((each) => !each.isRunning).map((each) => each.name);
        if (dead.length > 0) throw new Error(`Ceph's ${dead} died.\n${await this.#directory.logTail(...dead)}`);
        return answers(this.endpoint);
      },
      {what: 'Ceph to answer', everyMs: 50},
    );
  }

  async #tool(file: string, args: string[]): Promise<void> {
    await execa(file, args, {cwd: this.#directory.path, timeout: 30_000, env: {LC_ALL: 'C'}});
  }
}
