/** Settings, a runtime and a store of its own for a test that calls an operation directly. */
import {randomBytes} from 'node:crypto';
import {mkdtemp, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {defaultRetention} from '../../src/lib/catalog/retention.ts';
import type {KeySettings, StoreSettings} from '../../src/lib/config.ts';
import {BackupError} from '../../src/lib/errors.ts';
import type {BackupSettings} from '../../src/lib/operations/backup.ts';
import type {RestoreSettings} from '../../src/lib/operations/restore.ts';
import type {Runtime} from '../../src/lib/operations/runtime.ts';
import type {VerifySettings} from '../../src/lib/operations/verify.ts';
import {type Connection, parseConnectionUrl} from '../../src/lib/postgres/connection.ts';
import {Secret} from '../../src/lib/secret.ts';
import {openStores} from '../../src/lib/upload/open-store.ts';
import type {ObjectStore} from '../../src/lib/upload/store.ts';
import type {ObjectHandle} from './object-handle.ts';
import {createBucket} from './object-server.ts';
import {servers} from './sandbox.ts';

/** What an operation takes from its process; only what a test says is unusual about it. */
export function runtime(changes: Partial<Runtime> = {}): Runtime {
  return {
    environment: {PATH: process.env.PATH, HOME: process.env.HOME},
    toolVersion: '0.0.0-test',
    now: () => new Date(),
    observer: () => undefined,
    ...changes,
  };
}

/** A new encryption key, as 64 hex characters. */
export function newKey(): string {
  return randomBytes(32).toString('hex');
}

export function keySettings(current: string, ...previous: string[]): KeySettings {
  return {current: new Secret(current), previous: previous.map((key) => new Secret(key))};
}

export function connectionTo(url: string): Connection {
  const connection = parseConnectionUrl(url);
  if (typeof connection === 'string') throw new Error(`The URL ${connection}.`);
  return connection;
}

export type StoreKind = 'directory' | 's3';

/** A store that nobody else uses. */
export interface TestStore {
  settings: StoreSettings;
  store: ObjectStore;
  /** Every object in it, in the store's order. */
  keys(): Promise<string[]>;
  /** Keys of uploads that were neither completed nor aborted. */
  unfinished(): Promise<string[]>;
  /** Of the directory store: where its objects lie. */
  folder: string;
  dispose(): Promise<void>;
}

/** Settings for a bucket on an S3 server. */
export function s3Settings(server: ObjectHandle, bucket: string): StoreSettings {
  return {
    kind: 's3',
    endpoint: server.endpoint,
    region: server.region,
    accessKeyId: server.accessKeyId,
    secretAccessKey: new Secret(server.secretAccessKey),
    backupsBucket: bucket,
    filesBucket: 'loma-phi-files',
  };
}

/** @param server of an S3 store; by default the one that all tests share */
export async function testStore(kind: StoreKind, server: ObjectHandle = servers().objects): Promise<TestStore> {
  if (kind === 's3') return testStoreOf(s3Settings(server, await createBucket(server)), '', async () => undefined);
  const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-store-'));
  const settings = {kind: 'directory', path: folder, backupsBucket: 'backups', filesBucket: 'files'} as const;
  return testStoreOf(settings, path.join(folder, 'backups'), () => rm(folder, {recursive: true, force: true}));
}

async function testStoreOf(settings: StoreSettings, folder: string, remove: () => Promise<void>): Promise<TestStore> {
  const stores = await openStores(settings);
  const {backups: store} = stores;
  return {
    settings,
    store,
    folder,
    keys: async () => (await collect(store.list(''))).map(({key}) => key),
    unfinished: async () => (await collect(store.unfinishedUploads(''))).map(({key}) => key),
    async dispose() {
      stores[Symbol.dispose]();
      await remove();
    },
  };
}

/** A backup of a database into a store, with nothing unusual but what the test says. */
export function backupSettings(
  {database, store, key}: {database: string; store: TestStore; key: string},
  changes: Partial<BackupSettings> = {},
): BackupSettings {
  return {
    database: connectionTo(database),
    store: store.settings,
    keys: keySettings(key),
    compression: 'gzip',
    label: 'manual',
    hold: false,
    excludeTableData: [],
    retention: defaultRetention,
    prune: true,
    ...changes,
  };
}

/** A restore from a store into a database, with nothing unusual but what the test says. */
export function restoreSettings(
  {target, store, key}: {target: string; store: Pick<TestStore, 'settings'>; key: string},
  changes: Partial<RestoreSettings> = {},
): RestoreSettings {
  return {
    store: store.settings,
    keys: keySettings(key),
    choice: {by: 'latest'},
    target: connectionTo(target),
    allowUnrestricted: false,
    ...changes,
  };
}

/** A verification of the newest backup in a store, with nothing unusual but what the test says. */
export function verifySettings(
  {scratch, store, key}: {scratch: string; store: Pick<TestStore, 'settings'>; key: string},
  changes: Partial<VerifySettings> = {},
): VerifySettings {
  return {
    store: store.settings,
    keys: keySettings(key),
    optionalDatabase: undefined,
    compression: 'gzip',
    choice: {by: 'latest'},
    withBackup: false,
    scratch: {on: 'server', connection: connectionTo(scratch)},
    formatAge: String,
    ...changes,
  };
}

/** The error that a promise is rejected with, which has to be one of ours. */
export async function failureOf(promise: Promise<unknown>): Promise<BackupError> {
  const error = await promise.then(
    () => new Error('It was expected to fail, and succeeded.'),
    (reason: unknown) => reason,
  );
  if (error instanceof BackupError) return error;
  throw error;
}

/** All of an object. */
export async function contentOf(store: ObjectStore, key: string): Promise<Buffer> {
  return Buffer.concat(await collect<Buffer>(store.get(key)));
}

/** Everything that comes. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
