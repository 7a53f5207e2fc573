/** How to reach an S3 server: plain facts that can be handed to another process. */

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
}

export type ObjectServerKind = 'swift' | 'ceph';

export interface ObjectHandle extends Credentials {
  kind: ObjectServerKind;
  /** `http://127.0.0.1:PORT` */
  endpoint: string;
  /** To sign for. Swift accepts this one alone, Ceph accepts every one. */
  region: string;
}
