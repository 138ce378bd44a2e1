use std::sync::Arc; use std::time::Instant; use dormouse_engine::*; use volume::*;
fn query(sql:&str)->Vec<u8>{ let mut v=vec![b'Q']; v.extend(((sql.len()+5) as u32).to_be_bytes()); v.extend(sql.as_bytes()); v.push(0); v }
#[tokio::main] async fn main(){
  tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
  let e=Engine::open(EngineOptions::new("/work/lab/cache")).unwrap();
  let dir=std::path::PathBuf::from("/work/lab/vol"); let tpl=Template::open(std::path::Path::new("/work/lab/tpl")).unwrap();
  let im=Image::decode(&std::fs::read("/work/lab/vol/image").unwrap()).unwrap();
  let v=Arc::new(Volume::create(&dir, DatabaseId::new(77000+std::process::id() as u64*1000).unwrap(), tpl.clone()).unwrap());
  let mut b=e.fork(&im, v.clone(), Default::default()).await.unwrap();
  for q in std::env::args().skip(1){ let t=Instant::now(); b.input().extend_from_slice(&query(&q)); let r=b.exchange().await; let o=b.output().split(); eprintln!("{q}: {r:?} {} {:?}",String::from_utf8_lossy(&o).chars().filter(|c|!c.is_control()).take(600).collect::<String>(),t.elapsed()); if r.is_err(){break} }
}
