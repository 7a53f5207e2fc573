import path from 'node:path';
import type {StoreSettings} from '../config.ts';
import {DirectoryStore} from './directory-store.ts';
import type {ObjectStore} from './store.ts';

export interface Stores {
  backups: ObjectStore;
  files: ObjectStore;
  /** Closes connections. */
  close(): void;
}

/**
 * The stores that the settings name. Nothing is contacted yet. The AWS SDK, a quarter of the time that a command needs to
 * start, is loaded only for a store that speaks to it.
 */
export async function openStores(settings: StoreSettings): Promise<Stores> {
  const {backupsBucket, filesBucket} = settings;
  if (settings.kind === 'directory') {
    return {
      backups: new DirectoryStore(path.join(settings.path, backupsBucket)),
      files: new DirectoryStore(path.join(settings.path, filesBucket)),
      close: () => undefined,
    };
  }
  const {S3Store, s3Client} = await import('./s3-store.ts');
  const client = s3Client(settings);
  const place = settings.endpoint.endsWith('.r2.cloudflarestorage.com') ? 'R2' : settings.endpoint;
  return {
    backups: new S3Store(client, backupsBucket, `bucket ${backupsBucket} (${place})`),
    files: new S3Store(client, filesBucket, `bucket ${filesBucket} (${place})`),
    close: () => client.destroy(),
  };
}
