/** OpenStack Swift from Debian's packages as an S3 server: small, quick to start, and strict about signatures. */
import {randomBytes} from 'node:crypto';
import {mkdir, writeFile} from 'node:fs/promises';
import os from 'node:os';
import {execa} from 'execa';
import {freePorts} from './free-ports.ts';
import type {RunnableObjectServer} from './object-server.ts';
import {debianPython} from './packages.ts';
import {answers, isListening} from './probe.ts';
import type {ServerDirectory} from './server-directory.ts';
import {
  proxyServerConf,
  ringScript,
  type SwiftLayout,
  serverScript,
  storageServerConf,
  storageServers,
  swiftConf,
  swiftPort,
  swiftPorts,
} from './swift-config.ts';
import {waitUntil} from './wait-until.ts';

export async function prepareSwift(directory: ServerDirectory): Promise<RunnableObjectServer> {
  const layout: SwiftLayout = {
    configDirectory: directory.file('etc'),
    dataDirectory: directory.file('devices'),
    user: os.userInfo().username,
    firstPort: await freePorts(swiftPorts.length),
    credentials: {
      accessKeyId: `loma:${randomBytes(6).toString('hex')}`,
      secretAccessKey: randomBytes(20).toString('hex'),
    },
  };
  await mkdir(layout.configDirectory);
  await mkdir(`${layout.dataDirectory}/d1`, {recursive: true});
  await writeConfiguration(layout);
  const endpoint = `http://127.0.0.1:${swiftPort(layout, 'proxy')}`;
  return {
    facts: {kind: 'swift', endpoint, region: 'auto', ...layout.credentials},
    run: () => run(layout, directory, endpoint),
  };
}

async function writeConfiguration(layout: SwiftLayout): Promise<void> {
  const write = (name: string, text: string) => writeFile(`${layout.configDirectory}/${name}`, text, {mode: 0o600});
  await Promise.all([
    write('swift.conf', swiftConf()),
    write('proxy-server.conf', proxyServerConf(layout)),
    ...storageServers.map((name) => write(`${name}-server.conf`, storageServerConf(layout, name))),
  ]);
  const result = await execa(
    debianPython,
    ['-I', '-c', ringScript(layout), layout.configDirectory, layout.dataDirectory],
    {
      reject: false,
    },
  );
  if (!result.failed) return;
  const hint = /setxattr/.test(result.stderr)
    ? `Swift needs a file system with extended attributes: set TMPDIR to a folder on one.\n`
    : '';
  throw new Error(`Swift's rings could not be made. ${hint}${result.stderr}`);
}

async function run(layout: SwiftLayout, directory: ServerDirectory, endpoint: string): Promise<void> {
  // A cache of tokens. -U 0: not by UDP. As root it wants to be told whom to run as.
  const memcached = ['-l', '127.0.0.1', '-p', String(swiftPort(layout, 'memcached')), '-U', '0', '-m', '64'];
  if (process.getuid?.() === 0) memcached.push('-u', 'nobody');
  const processes = [
    directory.start({name: 'memcached', file: 'memcached', args: memcached}),
    ...([...storageServers, 'proxy'] as const).map((name) =>
      directory.start({name, file: debianPython, args: ['-I', '-c', serverScript(layout, name)]}),
    ),
  ];
  const storagePorts = swiftPorts.filter((name) => name !== 'proxy').map((name) => swiftPort(layout, name));
  await waitUntil(
    async () => {
      const dead = processes.filter((each) => !each.isRunning).map((each) => each.name);
      if (dead.length > 0) throw new Error(`Swift's ${dead} did not start.\n${await directory.logTail(...dead)}`);
      const listening = await Promise.all(storagePorts.map(isListening));
      return listening.every(Boolean) && (await answers(`${endpoint}/healthcheck`));
    },
    {what: 'Swift to answer', everyMs: 30},
  );
}
