use std::sync::Arc;
use std::time::Instant;
use dormouse_engine::*;
use volume::*;

fn query(sql:&str)->Vec<u8>{ let mut v=vec![b'Q']; v.extend(((sql.len()+5) as u32).to_be_bytes()); v.extend(sql.as_bytes()); v.push(0); v }
fn startup()->Vec<u8>{ let mut b=vec![]; b.extend(196608u32.to_be_bytes()); for (k,v) in [("user","postgres"),("database","postgres"),("client_encoding","UTF8")]{b.extend(k.as_bytes());b.push(0);b.extend(v.as_bytes());b.push(0);} b.push(0); let mut o=((b.len()+4) as u32).to_be_bytes().to_vec(); o.extend(b); o}
fn show(b:&[u8])->String{ let mut s=String::new(); let mut i=0; while i+5<=b.len(){let l=u32::from_be_bytes(b[i+1..i+5].try_into().unwrap()) as usize; let body=&b[i+5..(i+1+l).min(b.len())]; s+=&format!("[{} {}] ",b[i] as char,String::from_utf8_lossy(body).replace('\0',"|")); i+=1+l;} s.chars().filter(|c|!c.is_control()).take(1500).collect() }
struct P; impl Progress for P{fn begin(&self,w:&str,n:u64){eprintln!("begin {w} {n}")} fn advance(&self,_:u64){} fn end(&self){eprintln!("end")}}
#[tokio::main] async fn main(){
  tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
  let t=Instant::now();
  let mut o=EngineOptions::new("/work/lab/cache"); o.progress=Arc::new(P);
  let e=Engine::open(o).unwrap(); eprintln!("open {:?}",t.elapsed());
  let dir=std::path::PathBuf::from("/work/lab/vol"); 
  if std::env::args().nth(1).as_deref()==Some("init"){ let _=std::fs::remove_dir_all(&dir); std::fs::create_dir_all(&dir).unwrap();
    let v=Arc::new(Volume::scratch(&dir).unwrap());
    let t=Instant::now(); e.initdb(v.clone()).await.unwrap(); eprintln!("initdb {:?}",t.elapsed());
    let t=Instant::now(); let mut b=e.boot(v.clone(),"postgres",Default::default()).await.unwrap(); eprintln!("boot {:?}",t.elapsed());
    b.connect(&startup()).await.unwrap(); eprintln!("{}",show(b.output())); b.output().clear();
    for q in ["select 1","select version()","show max_stack_depth","select 1/0","select count(*) from pg_class","checkpoint"]{ let t=Instant::now(); b.input().extend_from_slice(&query(q)); b.exchange().await.unwrap(); eprintln!("{q}: {} {:?}",show(b.output()),t.elapsed()); b.output().clear(); }
    let t=Instant::now(); let im=e.image(&mut b).unwrap(); let bytes=im.encode().unwrap(); eprintln!("image {} {:?}",bytes.len(),t.elapsed());
    let _=std::fs::remove_dir_all("/work/lab/tpl"); v.save_as_template(std::path::Path::new("/work/lab/tpl"), TemplateId::from_bytes([7;16])).unwrap();
    std::fs::write("/work/lab/vol/image",bytes).unwrap();
    b.shut_down().await.unwrap(); eprintln!("shut down");
  }
  let tpl=Template::open(std::path::Path::new("/work/lab/tpl")).unwrap();
  let t=Instant::now(); let im=Image::decode(&std::fs::read("/work/lab/vol/image").unwrap()).unwrap(); eprintln!("decode {:?}",t.elapsed());
  for i in 0..5u64 { let t=Instant::now(); let v=Arc::new(Volume::create(&dir, DatabaseId::new(100+i+std::process::id() as u64*1000).unwrap(), tpl.clone()).unwrap()); let t1=t.elapsed();
   let mut b=e.fork(&im, v.clone(), Default::default()).await.unwrap(); let t2=t.elapsed();
   b.input().extend_from_slice(&query("select 1")); b.exchange().await.unwrap(); let t3=t.elapsed(); b.output().clear();
   b.input().extend_from_slice(&query("create table t(a int primary key,b text); insert into t select i, 'x'||i from generate_series(1,10000) i; select count(*),random(),gen_random_uuid() from t")); b.exchange().await.unwrap(); let t4=t.elapsed();
   eprintln!("{}",show(b.output())); b.output().clear();
   eprintln!("create {t1:?} fork {t2:?} select {t3:?} table {t4:?}");
   if i==0 { for q in ["select 1","select b from t where a=77","update t set b='y' where a=77"]{ let n=2000; let t=Instant::now(); for _ in 0..n { b.input().extend_from_slice(&query(q)); b.exchange().await.unwrap(); b.output().clear(); } eprintln!("{q}: {:?}",t.elapsed()/n);}
    for q in ["create function f(int) returns int language plpgsql as 'begin return f($1+1); end'","select f(1)","set statement_timeout=100","select pg_sleep(5)","select count(*) from generate_series(1,100000000)","set statement_timeout=0","select 2","create extension vector","select '[1,2,3]'::vector <-> '[1,2,4]'","create extension pgcrypto","select digest('a','sha256')","select repeat('x',300000000)::text || repeat('y',300000000)", "select 3"]{ let t=Instant::now(); b.input().extend_from_slice(&query(q)); let r=b.exchange().await; eprintln!("{q}: {r:?} {} {:?}",show(b.output()),t.elapsed()); b.output().clear(); if r.is_err(){break}}
   }
   let t=Instant::now(); drop(b); eprintln!("drop {:?}",t.elapsed());
   if i==1 { for _ in 0..3 {let t=Instant::now(); let mut b=e.boot(v.clone(),"postgres",Default::default()).await.unwrap(); eprintln!("boot with recovery {:?}",t.elapsed()); b.connect(&startup()).await.unwrap(); b.output().clear(); b.input().extend_from_slice(&query("select count(*) from t")); b.exchange().await.unwrap(); eprintln!("{}",show(b.output())); b.shut_down().await.unwrap(); let t=Instant::now(); v.flush().unwrap(); eprintln!("flush {:?}",t.elapsed());} }
  }
}
